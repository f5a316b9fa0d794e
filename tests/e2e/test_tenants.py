"""Two tenants on one server: each sees its own, and of the other not even that it is there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mooring.testing import ServerProcess

ADMIN_KEY = "admin-of-this-server"
CONFIG = f'[server]\nadmin_key = "{ADMIN_KEY}"\n[caching]\nsweep_interval_s = 0.1\n'
USER = {"role": "user", "content": "Is the quay clear?"}
SYSTEM = {"role": "system", "content": "Keep the quay clear at all hours. " * 10}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("tenants"), tiny_model, CONFIG) as running:
        yield running


def connect(server: ServerProcess, key: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> Iterator[httpx.Client]:
    with connect(server, ADMIN_KEY) as client:
        yield client


@pytest.fixture(scope="module")
def tenants(server: ServerProcess, admin: httpx.Client) -> Iterator[dict[str, httpx.Client]]:
    clients = {}
    for tenant in ("north", "south"):
        made = admin.post("/admin/v1/tenants", json={"id": tenant, "name": tenant.title()})
        assert made.status_code == 200, made.text
        key = admin.post(f"/admin/v1/tenants/{tenant}/keys", json={"name": "test"}).json()
        clients[tenant] = connect(server, key["secret"])
    yield clients
    for client in clients.values():
        client.close()


def make_things(client: httpx.Client) -> dict[str, str]:
    """One of each kind of thing a tenant owns, by its path parameter."""
    body = {"model": "moonshot-v1", "messages": [SYSTEM], "tags": ["rules"], "metadata": {"a": "b"}}
    cache = client.post("/v1/caching", json=body).json()
    form = {"files": {"file": ("a.txt", b"text")}, "data": {"purpose": "file-extract"}}
    file = client.post("/v1/files", **form).json()
    chat = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 1}
    request_id = client.post("/v1/chat/completions", json=chat).json()["id"]
    return {
        "cache_id": cache["id"],
        "tag": "rules",
        "file_id": file["id"],
        "request_id": request_id,
    }


UNKNOWN = {
    "cache_id": "cache-00000000000000000000",
    "tag": "nobody",
    "file_id": "file-00000000000000000000",
    "request_id": "chatcmpl-000000000000000000000000",
}
CALLS = {
    ("GET", "/v1/caching/{cache_id}"): {},
    ("PUT", "/v1/caching/{cache_id}"): {"json": {"ttl": 60}},
    ("DELETE", "/v1/caching/{cache_id}"): {},
    ("GET", "/v1/caching/refs/tags/{tag}"): {},
    ("GET", "/v1/caching/refs/tags/{tag}/content"): {},
    ("GET", "/v1/files/{file_id}"): {},
    ("GET", "/v1/files/{file_id}/content"): {},
    ("DELETE", "/v1/files/{file_id}"): {},
    ("GET", "/v1/usage/requests/{request_id}"): {},
}
"""Every call on one thing; with another tenant's, it must be as with one that never was."""
DELETES_WHATEVER = {("DELETE", "/v1/caching/refs/tags/{tag}")}
"""Answers the same for any name."""
NAMED_IN_BODY = [
    ("/v1/caching/refs/tags", {"tag": "mine", "cache_id": "{cache_id}"}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "cache", "content": "cache_id={cache_id};reset_ttl=60"}, USER]},
    ),
    ("/v1/chat/completions", {"messages": [{"role": "cache", "content": "tag={tag}"}, USER]}),
    (
        "/v1/tokenizers/estimate-token-count",
        {"messages": [{"role": "cache", "content": "cache_id={cache_id}"}, USER]},
    ),
]


def alike(foreign: httpx.Response, unknown: httpx.Response, things: dict[str, str]) -> None:
    """Byte for byte, but for the id that the client itself sent."""
    text = foreign.text
    for name, value in things.items():
        text = text.replace(value, UNKNOWN[name])
    assert (foreign.status_code, text) == (unknown.status_code, unknown.text)
    headers = [dict(reply.headers) for reply in (foreign, unknown)]
    for each in headers:
        each.pop("date")
        each.pop("content-length")
    assert headers[0] == headers[1]


def test_the_table_has_every_call_on_a_thing(tenants: dict[str, httpx.Client]) -> None:
    document = tenants["north"].get("/openapi.json").json()
    calls = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if "{" in path and path.startswith("/v1/")
    }
    assert calls == CALLS.keys() | DELETES_WHATEVER


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_foreign_thing_is_as_one_that_never_was(
    tenants: dict[str, httpx.Client], method: str, path: str
) -> None:
    north, south = tenants["north"], tenants["south"]
    things = make_things(north)
    things["tag"] = "rules"
    foreign = south.request(method, path.format(**things), **CALLS[method, path])
    unknown = south.request(method, path.format(**UNKNOWN), **CALLS[method, path])
    assert unknown.status_code == 404
    alike(foreign, unknown, things)
    for kept in ("/v1/caching/{cache_id}", "/v1/caching/refs/tags/{tag}", "/v1/files/{file_id}"):
        assert north.get(kept.format(**things)).status_code == 200


@pytest.mark.parametrize(("path", "body"), NAMED_IN_BODY)
def test_a_foreign_thing_cannot_be_used(tenants: dict[str, httpx.Client], path: str, body: dict) -> None:
    things = make_things(tenants["north"])

    def filled(values: dict[str, str]) -> dict:
        text = repr({"model": "moonshot-v1", "max_tokens": 1} | body)
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return eval(text)  # our own literal

    foreign = tenants["south"].post(path, json=filled(things))
    unknown = tenants["south"].post(path, json=filled(UNKNOWN))
    assert unknown.status_code == 404
    alike(foreign, unknown, things)


def test_a_foreign_cache_cannot_be_used_by_header(tenants: dict[str, httpx.Client]) -> None:
    things = make_things(tenants["north"])
    body = {"model": "moonshot-v1", "messages": [SYSTEM, USER], "max_tokens": 1}
    replies = [
        tenants["south"].post(
            "/v1/chat/completions", json=body, headers={"X-Msh-Context-Cache": cache_id}
        )
        for cache_id in (things["cache_id"], UNKNOWN["cache_id"])
    ]
    assert replies[1].status_code == 404
    alike(*replies, things)


@pytest.mark.parametrize(
    ("path", "cursor"),
    [("/v1/caching", "cache_id"), ("/v1/caching/refs/tags", "tag"), ("/v1/files", "file_id")],
)
def test_lists_hold_the_tenants_own(tenants: dict[str, httpx.Client], path: str, cursor: str) -> None:
    things = make_things(tenants["north"])
    south = tenants["south"]
    assert south.get(path).json()["data"] == []
    foreign = south.get(path, params={"after": things[cursor]})
    alike(foreign, south.get(path, params={"after": UNKNOWN[cursor]}), things)
    assert things[cursor] in tenants["north"].get(path).text


TURN_MARKS = 8
"""Tokens at most that the template puts before a system message's text."""


def test_equal_messages_of_two_tenants_share_nothing(
    server: ServerProcess, admin: httpx.Client, tenants: dict[str, httpx.Client]
) -> None:
    """The second tenant's cache costs it as much as if the first had none."""
    messages = [{"role": "system", "content": "The same words for both. " * 30}]
    body = {"model": "moonshot-v1", "messages": messages}
    before = evaluated(admin)
    costs = []
    for client in tenants.values():
        cache = client.post("/v1/caching", json=body).json()
        while cache["status"] == "pending":
            cache = client.get(f"/v1/caching/{cache['id']}").json()
        costs.append(evaluated(admin) - before)
        before = evaluated(admin)
    for cost in costs:  # the first words of any prompt a tenant may have had computed before
        assert cache["tokens"] - TURN_MARKS <= cost <= cache["tokens"]


def evaluated(admin: httpx.Client) -> float:
    lines = admin.get("/metrics").text.splitlines()
    name = 'mooring_prompt_tokens_evaluated_total{purpose="prefix"}'
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


def test_a_tag_is_owned_by_its_tenant(tenants: dict[str, httpx.Client]) -> None:
    make_things(tenants["north"])
    assert tenants["north"].get("/v1/caching/refs/tags/rules").json()["owned_by"] == "north"


def test_metrics_are_the_operators(tenants: dict[str, httpx.Client], admin: httpx.Client) -> None:
    """They tell what others do."""
    assert tenants["north"].get("/metrics").status_code == 403
    assert admin.get("/metrics").status_code == 200


# The admin API


def test_only_the_admin_key_opens_the_admin_api(
    tenants: dict[str, httpx.Client], server: ServerProcess
) -> None:
    for path in ("/admin/v1/tenants", "/admin/v1/tenants/south", "/admin/v1/tenants/south/keys"):
        assert tenants["north"].get(path).status_code == 403
        assert httpx.get(server.url + path).status_code == 401
    assert tenants["north"].post("/admin/v1/tenants", json={"id": "x"}).status_code == 403


def test_a_keys_life(server: ServerProcess, admin: httpx.Client, tenants: dict) -> None:
    keys = "/admin/v1/tenants/north/keys"
    made = admin.post(keys, json={"name": "short", "ttl": 60}).json()
    assert made["secret"].startswith(made["hint"])
    assert made["expires_at"] == made["created_at"] + 60
    listed = {key["id"]: key for key in admin.get(keys).json()["data"]}
    assert listed[made["id"]] == {key: value for key, value in made.items() if key != "secret"}
    with connect(server, made["secret"]) as client:
        assert client.get("/v1/models").status_code == 200
        revoked = admin.delete(f"{keys}/{made['id']}").json()
        assert revoked["revoked_at"] >= made["created_at"]
        reply = client.get("/v1/models")
    assert (reply.status_code, reply.json()["error"]["type"]) == (401, "incorrect_api_key_error")
    assert admin.delete(f"/admin/v1/tenants/south/keys/{made['id']}").status_code == 404


def test_a_tenant_is_disabled_and_enabled(admin: httpx.Client, tenants: dict) -> None:
    path = "/admin/v1/tenants/north"
    assert admin.patch(path, json={"disabled": True}).json()["disabled"] is True
    assert tenants["north"].get("/v1/models").status_code == 401
    assert admin.patch(path, json={"disabled": False, "name": "N"}).json()["name"] == "N"
    assert tenants["north"].get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/admin/v1/tenants", {"id": "Bad Id"}, 400, "id"),
        ("POST", "/admin/v1/tenants", {"id": "north"}, 400, "id"),
        ("POST", "/admin/v1/tenants", {}, 400, "id"),
        ("POST", "/admin/v1/tenants", {"id": "x", "name": "n" * 257}, 400, "name"),
        ("POST", "/admin/v1/tenants/north/keys", {"ttl": 0}, 400, "ttl"),
        ("POST", "/admin/v1/tenants/nobody/keys", {}, 404, "tenant"),
        ("GET", "/admin/v1/tenants/nobody", None, 404, "tenant"),
        ("PATCH", "/admin/v1/tenants/nobody", {"name": "x"}, 404, "tenant"),
        ("DELETE", "/admin/v1/tenants/north/keys/key-0", None, 404, "key_id"),
    ],
)
def test_what_is_wrong_is_named(
    admin: httpx.Client,
    tenants: dict,
    method: str,
    path: str,
    body: dict | None,
    status: int,
    param: str,
) -> None:
    reply = admin.request(method, path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


# The command line, beside the running server


def mooring(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mooring", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_keys_are_made_and_revoked_beside_a_running_server(server: ServerProcess, tenants: dict) -> None:
    where = ("--data-dir", str(server.log_path.parent))
    made = mooring("tenant", "create", "east", "--name", "The east quay", *where)
    assert made.returncode == 0, made.stderr
    assert "east" in mooring("tenant", "list", *where).stdout
    secret = mooring("key", "create", "east", "--days", "1", *where).stdout.strip()
    with connect(server, secret) as client:
        assert client.get("/v1/models").status_code == 200
        listed = mooring("key", "list", "east", "--json", *where).stdout
        assert secret not in listed
        key_id = httpx.Response(200, text=listed).json()[0]["id"]
        assert mooring("key", "revoke", key_id, *where).returncode == 0
        while client.get("/v1/models").status_code == 200:
            pass  # trusted for a few seconds more
        assert client.get("/v1/models").status_code == 401
    again = mooring("tenant", "create", "east", *where)
    assert again.returncode == 1
    assert "already" in again.stderr
    assert "Traceback" not in again.stderr


def test_the_first_key_closes_an_open_server(tmp_path: Path, tiny_model: Path) -> None:
    with ServerProcess(tmp_path, tiny_model) as server:
        assert "without a key" in server.log_path.read_text()
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
        secret = mooring("key", "create", "--data-dir", str(tmp_path)).stdout.strip()
        while httpx.get(f"{server.url}/v1/models").status_code == 200:
            pass
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        with connect(server, secret) as client:
            assert client.get("/v1/models").status_code == 200
