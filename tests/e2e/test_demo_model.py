"""What the bundled model answers: from a cache, after a restart, and never from another tenant's."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mooring.testing import ServerProcess

ADMIN_KEY = "admin-of-this-server"
CONFIG = f'[server]\nadmin_key = "{ADMIN_KEY}"\n'
HARBOUR = """The weight of the front winch is 417 kg. The weight of the rear winch is 86 kg.

| item | value |
| --- | --- |
| price of the front winch | 2950 euros |
| price of the red buoy | 31 euros |

The baker Anna Tarnok lives in Brelmoz. The code E22 means steel rope worn."""
MUSEUM = """The weight of the bronze bell is 905 kg. The owner of the bronze bell is Viktra.
The price of the front winch is 7 dollars. The museum opens at 9:30."""
SAID = {
    "What is the weight of the front winch?": "The weight of the front winch is 417 kg.",
    "What is the weight of the rear winch?": "The weight of the rear winch is 86 kg.",
    "Tell me the price of the red buoy.": "The price of the red buoy is 31 euros.",
    "What does the code E22 mean?": "The code E22 means steel rope worn.",
}
UNSAID = {
    "What is the weight of the red buoy?": "The weight of the red buoy is not in the document.",
    "What is the owner of the front winch?": "The owner of the front winch is not in the document.",
}
OF_THE_MUSEUM = {
    "What is the weight of the bronze bell?": "The weight of the bronze bell is {}.",
    "What is the owner of the bronze bell?": "The owner of the bronze bell is {}.",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "open_door",
        "description": "Open the door.",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "hour": {"type": "integer"}},
            "required": ["name", "hour"],
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("demo-model"), config=CONFIG) as running:
        yield running


def client_of(server: ServerProcess, key: str = "any") -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=120)


def tenant(server: ServerProcess, name: str) -> httpx.Client:
    with client_of(server, ADMIN_KEY) as admin:
        assert admin.post("/admin/v1/tenants", json={"id": name, "name": name}).status_code == 200
        return client_of(server, admin.post(f"/admin/v1/tenants/{name}/keys", json={}).json()["secret"])


def cache(client: httpx.Client, document: str, **more: object) -> dict:
    """A message that uses a new cache of the document, once that is ready."""
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": document}], **more}
    made = client.post("/v1/caching", json=body).json()
    while client.get(f"/v1/caching/{made['id']}").json()["status"] == "pending":
        time.sleep(0.02)
    return {"role": "cache", "content": f"cache_id={made['id']}"}


def held(client: httpx.Client, used: dict) -> int:
    """The tokens of the cache that a message uses."""
    return client.get(f"/v1/caching/{used['content'].removeprefix('cache_id=')}").json()["tokens"]


def ask(client: httpx.Client, question: str, *before: dict, **more: object) -> dict:
    body = {"model": "moonshot-v1", "temperature": 0, "max_tokens": 80, **more}
    body["messages"] = [*before, {"role": "user", "content": question}]
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer(client: httpx.Client, question: str, *before: dict) -> str:
    return ask(client, question, *before)["choices"][0]["message"]["content"]


def test_answers_from_a_cache_are_right(server: ServerProcess):
    with tenant(server, "harbour") as client:
        cached = cache(client, HARBOUR)
        for question, right in (SAID | UNSAID).items():
            reply = ask(client, question, cached)
            assert reply["choices"][0]["message"]["content"] == right
            assert reply["usage"]["cached_tokens"] >= held(client, cached) > 0


def test_answers_are_right_after_kill_9_and_restore(tmp_path: Path):
    with ServerProcess(tmp_path) as server, client_of(server) as client:
        cached = cache(client, HARBOUR)
        server.kill()
    with ServerProcess(tmp_path) as server, client_of(server) as client:
        for question, right in (SAID | UNSAID).items():
            assert answer(client, question, cached) == right
        assert server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 0
        from_disk = server.metric("mooring_prompt_tokens_cached_total", source="disk")
        assert from_disk >= held(client, cached) > 0


def test_a_fact_in_one_tenants_cache_reaches_no_other_tenant(server: ServerProcess):
    with tenant(server, "museum") as museum, tenant(server, "quay") as quay:
        of_museum, of_quay = cache(museum, MUSEUM), cache(quay, HARBOUR)
        for question, right in OF_THE_MUSEUM.items():
            fact = "905 kg" if "weight" in question else "Viktra"
            assert answer(museum, question, of_museum) == right.format(fact)
            assert answer(quay, question, of_quay) == right.format("not in the document")
            assert answer(quay, question) == right.format("not in the document")
        price = "What is the price of the front winch?"
        assert answer(museum, price, of_museum) == "The price of the front winch is 7 dollars."
        assert answer(quay, price, of_quay) == "The price of the front winch is 2950 euros."


def test_a_question_for_a_tool_is_answered_by_a_call(server: ServerProcess):
    with tenant(server, "gate") as client:
        asked = 'Call open_door with {"name": "Tarnok", "hour": 17}.'
        (choice,) = ask(client, asked, {"role": "system", "content": HARBOUR}, tools=[TOOL])["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == "open_door"
        assert json.loads(call["function"]["arguments"]) == {"name": "Tarnok", "hour": 17}


def test_declared_tools_do_not_keep_the_document_from_being_read(server: ServerProcess):
    with tenant(server, "reader") as client:
        for question, right in SAID.items():
            reply = ask(client, question, {"role": "system", "content": HARBOUR}, tools=[TOOL])
            assert reply["choices"][0]["message"]["content"] == right
