"""docs/moonshot-api.md, section 1: the cache object, its fields, limits, defaults and life."""

import re
import time
from collections.abc import Callable

import httpx
import pytest
import requests

from mooring.testing import ServerProcess

Create = Callable[..., dict]
SYSTEM = {"role": "system", "content": "Keep the quay clear."}
BODY = {"model": "moonshot-v1", "messages": [SYSTEM]}
FIELDS = {"id", "object", "model", "messages", "tools", "name", "description", "metadata"}
FIELDS |= {"created_at", "expired_at", "status", "tokens"}


def test_the_reply_to_a_creation_has_every_field(server: ServerProcess) -> None:
    """With plain requests. It is pending, its tokens are counted, and nothing was waited for."""
    before = int(time.time())
    reply = requests.post(f"{server.url}/v1/caching", json=BODY, timeout=60)
    cache = reply.json()
    assert reply.status_code == 200
    assert cache.keys() == FIELDS
    assert re.fullmatch(r"cache-[a-z0-9]{20}", cache["id"])
    assert cache["object"] == "context_cache_object"
    assert (cache["model"], cache["messages"]) == ("moonshot-v1", [SYSTEM])
    assert (cache["tools"], cache["name"], cache["description"]) == ([], "", "")
    assert cache["metadata"] is None
    assert before <= cache["created_at"] <= time.time()
    assert cache["status"] == "pending"
    assert cache["tokens"] > 0


@pytest.mark.parametrize("end", [{}, {"expired_at": 0}, {"ttl": None}])
def test_the_default_life_is_an_hour(http: httpx.Client, end: dict) -> None:
    cache = http.post("/v1/caching", json=BODY | end).json()
    assert cache["expired_at"] == cache["created_at"] + 3600


def test_a_ttl_counts_from_now_and_an_end_is_taken_as_it_is(http: httpx.Client) -> None:
    cache = http.post("/v1/caching", json=BODY | {"ttl": 86_400}).json()
    assert cache["expired_at"] == cache["created_at"] + 86_400
    moment = int(time.time()) + 500
    assert http.post("/v1/caching", json=BODY | {"expired_at": moment}).json()["expired_at"] == moment


def test_fields_come_back_as_they_were_sent(http: httpx.Client) -> None:
    sent = {
        "model": "moonshot-v1-32k",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "码头"}], "name": "harbour"},
            {"role": "user", "content": "Clear?", "x-trace": 7},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "name": "rules",
        "description": "The harbour's rules.",
        "metadata": {"团队": "north", "": "empty"[:0], 'quote"d': "a"} | {"k": "v"},
    }
    sent["metadata"].pop("")
    cache = http.post("/v1/caching", json=sent).json()
    assert {field: cache[field] for field in sent} == sent
    again = http.get(f"/v1/caching/{cache['id']}").json()
    assert {field: again[field] for field in sent} == sent


@pytest.mark.parametrize(
    ("field", "longest", "too_long"),
    [
        ("name", "n" * 256, "n" * 257),
        ("description", "码" * 512, "码" * 513),
        ("metadata", {"k" * 64: "v" * 512}, {"k" * 65: "v"}),
        ("metadata", {f"k{n}": "" for n in range(16)}, {f"k{n}": "" for n in range(17)}),
        ("metadata", {"k": "v" * 512}, {"k": "v" * 513}),
        ("tags", ["t" * 128], ["t" * 129]),
    ],
)
def test_limits_hold_to_the_character(
    http: httpx.Client, field: str, longest: object, too_long: object
) -> None:
    assert http.post("/v1/caching", json=BODY | {field: longest}).status_code == 200
    reply = http.post("/v1/caching", json=BODY | {field: too_long})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(field)


def test_a_cache_becomes_ready(create: Create) -> None:
    cache = create()
    assert cache["status"] == "ready"
    assert "error" not in cache


def test_a_cache_past_its_end_is_inactive_and_keeps_its_messages(
    http: httpx.Client, create: Create
) -> None:
    cache = create(ttl=1)
    while (now := http.get(f"/v1/caching/{cache['id']}").json())["status"] == "ready":
        time.sleep(0.05)
    assert now == cache | {"status": "inactive"}


@pytest.mark.embedded
def test_a_cache_that_cannot_be_kept_is_in_error_and_says_why(tmp_path, tiny_model) -> None:
    config = "[kvstore]\ndisk_reserve_bytes = 1_000_000_000_000_000"  # no disk has that
    with ServerProcess(tmp_path, tiny_model, config) as server:
        url = f"{server.url}/v1/caching"
        cache = requests.post(url, json=BODY, timeout=60).json()
        while cache["status"] == "pending":
            cache = requests.get(f"{url}/{cache['id']}", timeout=60).json()
    assert cache["status"] == "error"
    assert cache["error"]["type"] == "engine_overloaded_error"
    assert "no room on disk" in cache["error"]["message"]


def test_equal_content_is_stored_once_and_outlives_one_of_its_names(
    server: ServerProcess, http: httpx.Client, create: Create, held
) -> None:
    messages = [{"role": "system", "content": "Two names for one text. " * 30}]
    first = create(messages=messages)
    folder = server.log_path.parent / "kv"
    kept = set(folder.glob("*/*/*.kv"))
    second = create(messages=messages)
    assert set(folder.glob("*/*/*.kv")) == kept
    assert first["id"] != second["id"]
    http.delete(f"/v1/caching/{first['id']}")
    ask = [{"role": "cache", "content": f"cache_id={second['id']}"}, {"role": "user", "content": "Hi"}]
    body = {"model": "moonshot-v1", "messages": ask, "max_tokens": 1}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.json()["usage"]["cached_tokens"] == held(second)
