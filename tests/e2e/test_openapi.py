"""The server keeps what its own OpenAPI document says: no 5xx, and no undocumented reply."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mooring.testing import ServerProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SMALL = "[engine]\ncontext_tokens = 256\ncells = 1024\nsequences = 16\n[chat]\ndefault_max_tokens = 4\n"


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    """Whatever is asked of it, its answers are short."""
    with ServerProcess(tmp_path_factory.mktemp("openapi"), tiny_model, SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def existing(small_server: ServerProcess) -> dict[str, str]:
    """Path parameters that lead somewhere."""
    with httpx.Client(base_url=small_server.url, timeout=60) as http:
        messages = [{"role": "system", "content": "Keep the quay clear."}]
        body = {"model": "moonshot-v1", "messages": messages, "tags": ["quay"]}
        cache = http.post("/v1/caching", json=body).json()
        form = {"files": {"file": ("a.txt", b"text")}, "data": {"purpose": "file-extract"}}
        file = http.post("/v1/files", **form).json()
        chat = {"model": "moonshot-v1", "messages": messages, "max_tokens": 1}
        answer = http.post("/v1/chat/completions", json=chat).json()
    return {
        "cache_id": cache["id"],
        "tag": "quay",
        "file_id": file["id"],
        "request_id": answer["id"],
    }


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_call_fails_or_replies_as_nobody_wrote_down(
    small_server: ServerProcess, existing: dict[str, str], mode: schemathesis.GenerationMode
):
    """With everything the document allows, and with what it does not."""
    document = schemathesis.openapi.from_url(f"{small_server.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 20
    seen: Counter[int] = Counter()
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and not _can_be_wrong(operation):
            continue

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), found=st.booleans())
        @hypothesis.settings(
            max_examples=50,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def keeps_its_word(case: schemathesis.Case, found: bool) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = "moonshot-v1"  # one that exists, or all would be 404
            if found and case.method != "DELETE":
                for name in existing.keys() & case.path_parameters.keys():
                    case.path_parameters[name] = existing[name]
            seen[case.call_and_validate(checks=CHECKS).status_code] += 1

        keeps_its_word()
    assert seen[200] > 100 or mode is schemathesis.GenerationMode.NEGATIVE
    assert seen[400] > 100
    assert seen[404] > 50 or mode is schemathesis.GenerationMode.NEGATIVE


def _can_be_wrong(operation) -> bool:
    """A path alone cannot: any text is one."""
    return bool(operation.body or operation.query)


def test_every_path_is_described(small_server: ServerProcess):
    document = httpx.get(f"{small_server.url}/openapi.json").json()
    paths = set(document["paths"])
    assert {"/v1/caching", "/v1/caching/{cache_id}", "/v1/chat/completions", "/v1/files"} <= paths
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert operation["responses"]["200"].get("content")
