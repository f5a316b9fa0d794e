"""Without any cache object: what a tenant said before is reused, over HTTP and through a restart."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mooring.testing import ServerProcess

KEYS = """
[server]
api_key = "key-of-the-default-tenant"
admin_key = "key-of-the-operator"
[billing]
plan = "dollar-2025"
"""
MANUAL = " ".join(f"Winch {n} lifts {n * 17 % 230} stones." for n in range(60))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("automatic"), tiny_model, KEYS) as running:
        yield running


@pytest.fixture
def ours(server: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer key-of-the-default-tenant"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def theirs(server: ServerProcess) -> Iterator[httpx.Client]:
    """Another tenant."""
    admin = {"Authorization": "Bearer key-of-the-operator"}
    base = f"{server.url}/admin/v1/tenants"
    httpx.post(base, json={"id": "others", "name": "The others"}, headers=admin)
    key = httpx.post(f"{base}/others/keys", json={"name": "test"}, headers=admin).json()["secret"]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def chat(client: httpx.Client, *messages: dict, **more) -> dict:
    body = {"model": "moonshot-v1", "messages": messages, "temperature": 0, "max_tokens": 12} | more
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def test_a_conversation_goes_on_where_it_was(ours: httpx.Client) -> None:
    """Each turn computes no more than what was not in the prompt before."""
    said, before = [{"role": "system", "content": MANUAL}], 0
    for turn in range(4):
        said.append(user(f"How much does winch {turn} lift?"))
        answered = chat(ours, *said)
        usage = answered["usage"]
        assert usage["prompt_tokens"] - usage["cached_tokens"] <= usage["prompt_tokens"] - before
        assert turn == 0 or usage["cached_tokens"] >= before
        before = usage["prompt_tokens"]
        said.append(answered["choices"][0]["message"])


def test_another_tenant_computes_the_same_again(ours: httpx.Client, theirs: httpx.Client) -> None:
    messages = [{"role": "system", "content": MANUAL + " For two tenants."}, user("Well?")]
    chat(ours, *messages)
    again = chat(ours, *messages)["usage"]
    assert again["cached_tokens"] == again["prompt_tokens"] - 1
    foreign = chat(theirs, *messages)["usage"]
    assert foreign["cached_tokens"] == 0
    assert chat(theirs, *messages)["usage"]["cached_tokens"] == foreign["prompt_tokens"] - 1


def test_what_was_reused_is_billed_as_cached_input(ours: httpx.Client) -> None:
    messages = [{"role": "system", "content": MANUAL + " For the bill."}, user("How much?")]
    chat(ours, *messages)
    completion = chat(ours, *messages)
    usage, lines = completion["usage"], ours.get(f"/v1/usage/requests/{completion['id']}").json()
    quantities = {line["kind"]: line["quantity"] for line in lines["data"]}
    assert quantities["cached_input"] == usage["cached_tokens"] > 0
    assert quantities["input"] == 1
    assert "call" not in quantities  # no cache was called


def test_a_cache_of_what_was_said_computes_nothing(ours: httpx.Client, server: ServerProcess) -> None:
    manual = {"role": "system", "content": MANUAL + " To be cached later."}
    chat(ours, manual, user("Which one?"))

    def evaluated() -> float:
        return sum(
            server_metric(server, f'mooring_prompt_tokens_evaluated_total{{purpose="{purpose}"}}')
            for purpose in ("request", "prefix")
        )

    before = evaluated()
    cache = ours.post("/v1/caching", json={"model": "moonshot-v1", "messages": [manual]}).json()
    hit = chat(ours, {"role": "cache", "content": f"cache_id={cache['id']}"}, user("Which one then?"))
    assert hit["usage"]["cached_tokens"] >= cache["tokens"]
    assert evaluated() - before == hit["usage"]["prompt_tokens"] - hit["usage"]["cached_tokens"]


def test_the_reply_says_what_the_named_cache_saved_and_usage_what_all_did(ours: httpx.Client) -> None:
    manual = {"role": "system", "content": MANUAL + " With a name."}
    cache = ours.post("/v1/caching", json={"model": "moonshot-v1", "messages": [manual]}).json()
    body = {
        "model": "moonshot-v1",
        "messages": [{"role": "cache", "content": f"cache_id={cache['id']}"}, user("Once more?")],
        "max_tokens": 3,
    }
    replies = [ours.post("/v1/chat/completions", json=body) for _ in range(2)]
    saved = [int(reply.headers["Msh-Context-Cache-Token-Saved"]) for reply in replies]
    assert saved == [cache["tokens"]] * 2
    usage = replies[1].json()["usage"]
    assert usage["cached_tokens"] == usage["prompt_tokens"] - 1


def server_metric(server: ServerProcess, line: str) -> float:
    headers = {"Authorization": "Bearer key-of-the-operator"}
    for found in httpx.get(f"{server.url}/metrics", headers=headers).text.splitlines():
        if found.startswith(line + " "):
            return float(found.rpartition(" ")[2])
    return 0.0
