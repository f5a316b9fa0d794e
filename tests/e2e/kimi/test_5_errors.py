"""docs/moonshot-api.md, section 5: the error table, row by row, with the exceptions of OpenAI's SDK."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import openai
import pytest

from mooring.testing import ServerProcess

USER = {"role": "user", "content": "Is the quay clear?"}
CHAT = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 2}
KEY = "mooring-test-key"


Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients of any server, closed in the end."""
    with ExitStack() as clients:

        def open_client(server: ServerProcess, key: str = "any", **options: object) -> openai.OpenAI:
            url = f"{server.url}/v1"
            return clients.enter_context(
                openai.OpenAI(base_url=url, api_key=key, max_retries=0, **options)  # type: ignore[arg-type]
            )

        yield open_client


def check(
    error: openai.APIStatusError,
    status: int,
    kind: str,
    code: str | None = None,
    param: str | None = None,
) -> None:
    assert error.status_code == status
    assert error.type == kind
    assert (error.code, error.param) == (code, param)
    assert error.body["message"]
    assert error.response.headers["Content-Type"] == "application/json"


# 400


def test_400_a_wrong_field(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(**CHAT, temperature=3)
    check(caught.value, 400, "invalid_request_error", None, "temperature")


def test_400_a_prompt_beyond_the_context(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="moonshot-v1", messages=[USER | {"content": "quay " * 40_000}])
    check(caught.value, 400, "invalid_request_error", "context_length_exceeded", "messages")


def test_400_an_expired_cache(sdk: openai.OpenAI, http: httpx.Client, create) -> None:
    cache = create(ttl=1)
    while http.get(f"/v1/caching/{cache['id']}").json()["status"] != "inactive":
        time.sleep(0.05)
    message = {"role": "cache", "content": f"cache_id={cache['id']}"}
    with pytest.raises(openai.BadRequestError, match="reset_ttl") as caught:
        sdk.chat.completions.create(model="moonshot-v1", messages=[message, USER])
    check(caught.value, 400, "invalid_request_error", "cache_expired", "messages")


def test_400_many_choices_at_a_temperature_near_0(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(**CHAT, temperature=0, n=2)
    check(caught.value, 400, "invalid_request_error", None, "n")


# 401


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    config = f'[server]\napi_key = "{KEY}"\n'
    with ServerProcess(tmp_path_factory.mktemp("locked"), tiny_model, config) as server:
        yield server


def test_401_a_wrong_key(connect: Connect, locked: ServerProcess) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        connect(locked, "another-key").models.list()
    check(caught.value, 401, "incorrect_api_key_error", "invalid_api_key")
    assert connect(locked, KEY).models.list().data


@pytest.mark.parametrize("authorization", [None, "", "Basic eDp5", KEY, "Bearer"])
def test_401_no_key(locked: ServerProcess, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/v1/models", "/v1/caching", "/metrics", "/v1/nothing", "/openapi.json"):
        reply = httpx.get(f"{locked.url}{path}", headers=headers)
        assert reply.status_code == 401
        assert reply.json()["error"]["type"] == "invalid_authentication_error"
    assert httpx.get(f"{locked.url}/health", headers=headers).status_code == 200


# 403


def test_403_a_server_without_a_key_called_by_a_foreign_name(
    connect: Connect, server: ServerProcess
) -> None:
    """As a web page would, that makes its visitor's browser call this machine."""
    client = connect(server, default_headers={"Host": "evil.example"})
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.models.list()
    check(caught.value, 403, "permission_denied_error")


# 404


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/caching/cache-00000000000000000000", "cache_not_found"),
        ("PUT", "/v1/caching/cache-00000000000000000000", "cache_not_found"),
        ("DELETE", "/v1/caching/cache-00000000000000000000", "cache_not_found"),
        ("GET", "/v1/caching/refs/tags/nobody", None),
        ("GET", "/v1/caching/refs/tags/nobody/content", None),
        ("GET", "/v1/files/file-0", "file_not_found"),
        ("GET", "/v1/nothing", None),
    ],
)
def test_404_what_is_not_there(http: httpx.Client, method: str, path: str, code: str | None) -> None:
    reply = http.request(method, path, json={} if method == "PUT" else None)
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("resource_not_found_error", code)


def test_404_an_unknown_model(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="moonshot-v1-128k") as caught:
        sdk.chat.completions.create(**CHAT | {"model": "gpt-4"})
    check(caught.value, 404, "resource_not_found_error", "model_not_found", "model")


def test_404_an_unknown_cache(sdk: openai.OpenAI) -> None:
    message = {"role": "cache", "content": "cache_id=cache-00000000000000000000"}
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(**CHAT | {"messages": [message, USER]})
    check(caught.value, 404, "resource_not_found_error", "cache_not_found")


def test_405_is_an_invalid_request(http: httpx.Client) -> None:
    reply = http.patch("/v1/caching")
    assert (reply.status_code, reply.json()["error"]["type"]) == (405, "invalid_request_error")


# 409


def test_409_a_strict_request_whose_cache_does_not_apply(sdk: openai.OpenAI, create) -> None:
    headers = {"X-Msh-Context-Cache": create()["id"], "X-Context-Cache-Strict": "1"}
    with pytest.raises(openai.ConflictError, match="messages_changed; index=0") as caught:
        sdk.chat.completions.create(**CHAT, extra_headers=headers)
    check(caught.value, 409, "invalid_request_error", "cache_miss")


# 429


def test_429_a_full_queue(connect: Connect, tmp_path: Path, tiny_model: Path) -> None:
    config = "[engine]\nsequences = 2\ncells = 1024\ncontext_tokens = 1024\nmax_queued = 1\n"
    refused: list[openai.RateLimitError] = []
    served: list[int] = []
    with ServerProcess(tmp_path, tiny_model, config) as server:

        def ask() -> None:
            try:
                reply = connect(server).chat.completions.create(**CHAT | {"max_tokens": 600})
                served.append(reply.usage.completion_tokens)
            except openai.RateLimitError as error:
                refused.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert served
    assert refused
    for error in refused:
        check(error, 429, "engine_overloaded_error")
        assert int(error.response.headers["Retry-After"]) >= 1


# 499

LONG = {"type": "string", "minLength": 1_000_000}
ENDLESS = {
    "max_tokens": 30_000,
    "response_format": {"type": "json_schema", "json_schema": {"name": "long", "schema": LONG}},
}


def test_499_is_in_the_log_only(server: ServerProcess) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=CHAT | ENDLESS, timeout=0.3)
    while "client_closed_request path=/v1/chat/completions" not in server.log_path.read_text():
        time.sleep(0.02)


# 500


def test_500_a_registry_that_fails(connect: Connect, tmp_path: Path, tiny_model: Path) -> None:
    with ServerProcess(tmp_path, tiny_model) as server:
        with sqlite3.connect(tmp_path / "registry.sqlite3") as database:
            database.execute("ALTER TABLE caches RENAME TO hidden")
        client = connect(server)
        message = {"role": "cache", "content": "cache_id=cache-00000000000000000000"}
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**CHAT | {"messages": [message, USER]})
        check(caught.value, 500, "server_error")
        assert "SELECT" not in caught.value.body["message"]
        assert client.chat.completions.create(**CHAT).choices  # what needs no registry goes on
