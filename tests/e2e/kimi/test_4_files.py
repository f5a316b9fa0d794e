"""Section 4, files: upload, list, text, delete; every kind of document, good and bad."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import requests
from documents import (
    SENTENCE,
    make_billion_laughs,
    make_bomb,
    make_deep,
    make_docx,
    make_encrypted_pdf,
    make_html,
    make_pdf,
    make_pdf_without_text,
    make_pptx,
    make_xlsx,
)

from mooring.testing import ServerProcess

UNKNOWN = "file-" + "0" * 20
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 3


def upload(http: httpx.Client, name: str, data: bytes, purpose: str = "file-extract") -> httpx.Response:
    return http.post("/v1/files", files={"file": (name, data)}, data={"purpose": purpose})


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("rules.pdf", make_pdf(), "application/pdf"),
        ("rules.docx", make_docx(), "wordprocessingml.document"),
        ("rules.pptx", make_pptx(), "presentationml.presentation"),
        ("rules.xlsx", make_xlsx(), "spreadsheetml.sheet"),
        ("rules.html", make_html(), "text/html"),
        ("rules.htm", make_html("gb18030"), "text/html"),
        ("rules", make_html(), "text/html"),
        ("rules.md", f"# Rules\n\n* {SENTENCE}\n".encode(), "text/markdown"),
        ("rules.py", f'RULE = "{SENTENCE}"\n'.encode(), "text/plain"),
        ("rules.txt", SENTENCE.encode("utf-16"), "text/plain"),
        ("rules.csv", f"rule;{SENTENCE};größer\n".encode("latin-1"), "text/plain"),
        ("码头.txt", f"{SENTENCE} 码头规则:所有船只必须在日落之前系泊。".encode("gbk"), "text/plain"),
        ("a pdf.docx", make_pdf(), "application/pdf"),
        ("a docx.txt", make_docx(), "wordprocessingml.document"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_documents_are_read(sdk: openai.OpenAI, name: str, data: bytes, kind: str):
    """By what is in them, whatever they are called."""
    file = sdk.files.create(file=(name, data), purpose="file-extract")  # type: ignore[arg-type]
    assert (file.status, file.status_details) == ("ok", "")
    assert (file.object, file.filename, file.bytes) == ("file", name, len(data))
    assert file.purpose == "file-extract"
    content = json.loads(sdk.files.content(file.id).text)
    assert set(content) == {"content", "file_type", "filename", "title", "type"}
    assert SENTENCE in content["content"]
    assert "steal" not in content["content"]
    assert kind in content["file_type"]
    assert (content["filename"], content["type"]) == (name, "file")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.txt", b"", "empty"),
        ("space.txt", b" \n\t ", "nothing but space"),
        ("secret.pdf", make_encrypted_pdf(), "encrypted"),
        ("half.pdf", make_pdf()[:500], "damaged"),
        ("scan.pdf", make_pdf_without_text(), "no text"),
        ("half.docx", make_docx()[:5000], "damaged"),
        ("image.png", PNG, "images are not read"),
        ("image.txt", PNG, "images are not read"),
        ("archive.zip", b"PK\x03\x04" + bytes(100), "archive"),
        ("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "old document"),
        ("bomb.docx", make_bomb(), "unpacks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_document_says_why_it_has_no_text(http: httpx.Client, name: str, data: bytes, reason: str):
    reply = upload(http, name, data)
    assert reply.status_code == 200, reply.text
    file = reply.json()
    assert file["status"] == "error"
    assert reason in file["status_details"]
    content = http.get(f"/v1/files/{file['id']}/content")
    assert content.status_code == 400
    assert file["status_details"] in content.json()["error"]["message"]
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize("data", [make_deep(), make_billion_laughs()], ids=["deep", "laughs"])
def test_documents_made_to_exhaust_their_reader_do_not(http: httpx.Client, data: bytes):
    file = upload(http, "odd.docx", data).json()
    assert file["status"] == "ok"
    text = http.get(f"/v1/files/{file['id']}/content").json()["content"]
    assert "Harbour rules" in text
    assert len(text) < 200


def test_files_are_listed_in_pages(http: httpx.Client):
    made = [upload(http, f"{n}.txt", b"text").json() for n in range(5)]
    ids = [file["id"] for file in made]
    page = http.get("/v1/files", params={"limit": 2}).json()
    assert (page["object"], page["has_more"]) == ("list", True)
    assert [file["id"] for file in page["data"]] == ids[:2:-1]
    assert (page["first_id"], page["last_id"]) == (ids[4], ids[3])
    page = http.get("/v1/files", params={"limit": 2, "after": page["last_id"]}).json()
    assert [file["id"] for file in page["data"]] == [ids[2], ids[1]]
    oldest = http.get("/v1/files", params={"order": "asc", "after": ids[3]}).json()
    assert [file["id"] for file in oldest["data"]] == ids[4:]
    assert not oldest["has_more"]
    assert http.get("/v1/files", params={"purpose": "fine-tune"}).json()["data"] == []
    assert http.get("/v1/files", params={"after": UNKNOWN}).status_code == 404


def test_the_sdk_pages_through_files(sdk: openai.OpenAI):
    made = {sdk.files.create(file=(f"{n}.txt", b"text"), purpose="file-extract").id for n in range(3)}  # type: ignore[arg-type]
    assert made <= {file.id for file in sdk.files.list(limit=2)}


def test_a_file_is_retrieved_and_deleted(server: ServerProcess):
    """With plain requests."""
    url = f"{server.url}/v1/files"
    made = requests.post(
        url, files={"file": ("a.txt", b"text")}, data={"purpose": "file-extract"}, timeout=60
    ).json()
    assert requests.get(f"{url}/{made['id']}", timeout=60).json() == made
    gone = requests.delete(f"{url}/{made['id']}", timeout=60)
    assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
    for path in (made["id"], f"{made['id']}/content"):
        reply = requests.get(f"{url}/{path}", timeout=60)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "file_not_found")
    assert requests.delete(f"{url}/{made['id']}", timeout=60).status_code == 404


@pytest.mark.parametrize("path", [UNKNOWN, "..%2Fregistry.sqlite3", "x" * 300, "文件"])
def test_an_unknown_file_is_not_found(sdk: openai.OpenAI, http: httpx.Client, path: str):
    for method, suffix in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert http.request(method, f"/v1/files/{path}{suffix}").status_code == 404
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(UNKNOWN)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"files": {"file": ("a.txt", b"x")}}, "purpose"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "fine-tune"}}, "purpose"),
        ({"data": {"purpose": "file-extract"}, "files": {"other": ("a", b"x")}}, "file"),
        ({"data": {"purpose": "file-extract", "file": "not a file"}}, "file"),
        (
            {"files": {"file": ("x" * 256 + ".txt", b"x")}, "data": {"purpose": "file-extract"}},
            "file",
        ),
    ],
)
def test_a_wrong_upload_is_a_400_that_names_the_field(http: httpx.Client, request_: dict, param: str):
    reply = http.post("/v1/files", **request_)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("multipart/form-data; boundary=x", b""),
    ],
)
def test_what_is_no_form_is_a_400(http: httpx.Client, content_type: str, body: bytes):
    reply = http.post("/v1/files", content=body, headers={"Content-Type": content_type})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\Windows\\win.ini", "/abs/olute.txt"])
def test_a_name_is_never_a_path(http: httpx.Client, name: str):
    file = upload(http, name, b"text").json()
    assert file["filename"] in ("passwd", "win.ini", "olute.txt")


LIMITS = """
[files]
max_files = 3
max_file_bytes = 2000
max_total_bytes = 4500
extraction_seconds = 1
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    with ServerProcess(tmp_path_factory.mktemp("small"), tiny_model, LIMITS) as server:
        yield server


@pytest.fixture
def small_http(small: ServerProcess):
    with httpx.Client(base_url=small.url, timeout=60) as client:
        yield client
        for file in client.get("/v1/files").json()["data"]:
            client.delete(f"/v1/files/{file['id']}")


def test_a_file_has_a_largest_size(small_http: httpx.Client):
    assert upload(small_http, "fits.txt", b"x" * 2000).json()["status"] == "ok"
    reply = upload(small_http, "more.txt", b"x" * 2001)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "file")
    far = upload(small_http, "far more.txt", b"x" * 200_000)
    assert far.status_code == 400
    assert "files.max_file_bytes" in far.json()["error"]["message"]


def test_a_tenant_has_a_largest_number_of_files(small_http: httpx.Client):
    made = [upload(small_http, f"{n}.txt", b"x").json()["id"] for n in range(3)]
    full = upload(small_http, "4.txt", b"x")
    assert (full.status_code, full.json()["error"]["type"]) == (429, "exceeded_current_quota_error")
    assert "3 files" in full.json()["error"]["message"]
    small_http.delete(f"/v1/files/{made[0]}")
    assert upload(small_http, "4.txt", b"x").status_code == 200


def test_a_tenant_has_a_largest_size_of_all_files(small_http: httpx.Client):
    for number in range(2):
        assert upload(small_http, f"{number}.txt", b"x" * 2000).status_code == 200
    assert upload(small_http, "2.txt", b"x" * 501).status_code == 429
    assert upload(small_http, "2.txt", b"x" * 500).status_code == 200


def test_uploads_at_once_do_not_pass_the_limits_together(small_http: httpx.Client):
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: upload(small_http, f"{n}.txt", b"x").status_code, range(8)))
    assert codes.count(200) == 3
    assert len(small_http.get("/v1/files").json()["data"]) == 3


def test_refused_uploads_leave_nothing_behind(small: ServerProcess, small_http: httpx.Client):
    upload(small_http, "bad.txt", b"")
    for number in range(5):
        upload(small_http, f"{number}.txt", b"x" * 2000)
    kept = {file["id"] for file in small_http.get("/v1/files").json()["data"]}
    folder = small.log_path.parent / "files"
    assert {path.stem for path in folder.iterdir()} <= kept
    assert {path.suffix for path in folder.iterdir()} == {".json"}


def test_what_a_crash_interrupted_is_gone_after_the_next_start(tmp_path: Path, tiny_model: Path):
    with ServerProcess(tmp_path, tiny_model) as server, httpx.Client(base_url=server.url) as http:
        kept = upload(http, "kept.txt", b"kept").json()
        server.kill()
    folder = tmp_path / "files"
    for leftover in ("file-1.upload", "file-1.unfinished", "file-2.json"):
        (folder / leftover).write_bytes(b"left")
    with ServerProcess(tmp_path, tiny_model) as server, httpx.Client(base_url=server.url) as http:
        assert [file["id"] for file in http.get("/v1/files").json()["data"]] == [kept["id"]]
        assert http.get(f"/v1/files/{kept['id']}/content").json()["content"] == "kept"
    assert [path.name for path in folder.iterdir()] == [f"{kept['id']}.json"]
