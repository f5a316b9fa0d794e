"""The announcement's client code, with nothing changed but the base URL and the key."""

import time

import httpx
import openai
import pytest
import requests

from mooring.testing import ServerProcess

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "CodeRunner",
            "description": "Runs Python code and returns what it prints.",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string"}},
                "required": ["code"],
            },
        },
    }
]
SYSTEM = "You are CodeRunner's assistant. " + " ".join(f"Rule {n}: be exact." for n in range(120))


TURN_MARKS = 8
"""Tokens at most that the template puts before a system message's text: other caches share them."""


def create_cache(server: ServerProcess, **fields: object) -> dict:
    body = {
        "model": "moonshot-v1",
        "messages": [{"role": "system", "content": SYSTEM}],
        "tools": TOOLS,
        "name": "CodeRunner",
        "ttl": 3600,
    }
    reply = requests.post(f"{server.url}/v1/caching", json=body | fields, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def cache_message(cache: dict, options: str = ";reset_ttl=3600") -> dict:
    return {"role": "cache", "content": f"cache_id={cache['id']}{options}"}


def wait_until_ready(server: ServerProcess, cache: dict) -> dict:
    while (found := requests.get(f"{server.url}/v1/caching/{cache['id']}", timeout=60).json())[
        "status"
    ] == "pending":
        time.sleep(0.02)
    return found


def test_creation_answers_pending_with_the_tokens_counted(server: ServerProcess) -> None:
    before = int(time.time())
    cache = create_cache(server)
    assert cache["id"].startswith("cache-")
    assert len(cache["id"]) == 26
    assert cache["object"] == "context_cache_object"
    assert cache["status"] == "pending"
    assert cache["tokens"] > 500
    assert cache["expired_at"] == cache["created_at"] + 3600
    assert cache["created_at"] >= before
    assert cache["messages"] == [{"role": "system", "content": SYSTEM}]
    assert cache["tools"] == TOOLS
    assert (cache["name"], cache["description"], cache["metadata"]) == ("CodeRunner", "", None)
    assert "error" not in cache
    assert wait_until_ready(server, cache)["status"] == "ready"


def test_chat_with_the_cache_computes_the_question_only(
    server: ServerProcess, sdk: openai.OpenAI
) -> None:
    cache = wait_until_ready(server, create_cache(server))
    before = server.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
    completion = sdk.chat.completions.create(
        model="moonshot-v1-8k",
        messages=[cache_message(cache), {"role": "user", "content": "Print 1+1."}],
        temperature=0.3,
        max_tokens=5,
    )
    after = server.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens_details.cached_tokens == cache["tokens"]
    assert usage.model_extra["cached_tokens"] == cache["tokens"]
    assert after - before == usage.prompt_tokens - cache["tokens"] < 30
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "moonshot-v1-8k"


def test_chat_with_a_cache_answers_as_the_same_messages_sent_whole(
    server: ServerProcess, sdk: openai.OpenAI
) -> None:
    cache = create_cache(server)
    question = {"role": "user", "content": "Print the first ten primes."}
    asked = {"model": "moonshot-v1-32k", "temperature": 0, "max_tokens": 12}
    cached = sdk.chat.completions.create(messages=[cache_message(cache), question], **asked)
    whole = sdk.chat.completions.create(
        messages=[{"role": "system", "content": SYSTEM}, question], tools=TOOLS, **asked
    )
    assert cached.choices[0].message.content == whole.choices[0].message.content
    assert cached.usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.usage.prompt_tokens_details.cached_tokens == 0


def test_streaming_sends_usage_in_each_choices_last_chunk(
    server: ServerProcess, sdk: openai.OpenAI
) -> None:
    cache = create_cache(server)
    chunks = list(
        sdk.chat.completions.create(
            model="moonshot-v1-8k",
            messages=[cache_message(cache), {"role": "user", "content": "Go."}],
            n=2,
            seed=1,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    last = {chunk.choices[0].index: chunk for chunk in chunks if chunk.choices}
    assert sorted(last) == [0, 1]
    for chunk in last.values():
        assert chunk.choices[0].finish_reason in ("stop", "length")
        assert chunk.choices[0].model_extra["usage"]["cached_tokens"] == cache["tokens"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == cache["tokens"]


def test_a_stream_ends_with_done(server: ServerProcess, http: httpx.Client) -> None:
    body = {"model": "moonshot-v1", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    reply = http.post("/v1/chat/completions", json=body | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("data: [DONE]\n\n")


def test_a_hit_says_so_in_the_headers_and_resets_the_ttl(
    server: ServerProcess, http: httpx.Client
) -> None:
    cache = wait_until_ready(server, create_cache(server, ttl=60))
    chat = {
        "model": "moonshot-v1",
        "messages": [cache_message(cache, ";reset_ttl=7200"), {"role": "user", "content": "Hi"}],
        "max_tokens": 2,
    }
    reply = http.post("/v1/chat/completions", json=chat)
    end = http.get(f"/v1/caching/{cache['id']}").json()["expired_at"]
    assert end >= cache["created_at"] + 7200
    assert reply.headers["Msh-Context-Cache-Id"] == cache["id"]
    assert reply.headers["Msh-Context-Cache-Token-Saved"] == str(cache["tokens"])
    assert reply.headers["Msh-Context-Cache-Token-Exp"] == str(end)


def test_an_expired_cache_is_refused_and_revived_by_a_new_ttl(
    server: ServerProcess, http: httpx.Client, sdk: openai.OpenAI
) -> None:
    cache = wait_until_ready(server, create_cache(server, ttl=1))
    while http.get(f"/v1/caching/{cache['id']}").json()["status"] != "inactive":
        time.sleep(0.05)
    ask = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.BadRequestError, match="reset_ttl"):
        sdk.chat.completions.create(
            model="moonshot-v1", messages=[cache_message(cache, ""), *ask], max_tokens=1
        )
    revived = sdk.chat.completions.create(
        model="moonshot-v1", messages=[cache_message(cache), *ask], max_tokens=1
    )
    assert revived.usage.model_extra["cached_tokens"] == cache["tokens"]
    assert http.get(f"/v1/caching/{cache['id']}").json()["status"] == "ready"


def test_deleting_one_of_two_equal_caches_keeps_the_other(
    server: ServerProcess, http: httpx.Client, sdk: openai.OpenAI
) -> None:
    fields = {"messages": [{"role": "system", "content": "Twice, then. " + SYSTEM}]}
    before = server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")
    first, second = (create_cache(server, **fields) for _ in range(2))
    assert [wait_until_ready(server, one)["status"] for one in (first, second)] == ["ready"] * 2
    reply = http.delete(f"/v1/caching/{first['id']}")
    assert reply.json() == {
        "deleted": True,
        "id": first["id"],
        "object": "context_cache_object.deleted",
    }
    assert http.get(f"/v1/caching/{first['id']}").status_code == 404
    chat = sdk.chat.completions.create(
        model="moonshot-v1",
        messages=[cache_message(second), {"role": "user", "content": "Hi"}],
        max_tokens=1,
    )
    assert chat.usage.model_extra["cached_tokens"] == second["tokens"]
    after = server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")
    assert first["tokens"] - TURN_MARKS <= after - before <= first["tokens"]


def test_listing_pages_through_the_caches(server: ServerProcess, http: httpx.Client) -> None:
    made = [create_cache(server)["id"] for _ in range(3)]
    newest = http.get("/v1/caching", params={"limit": 2}).json()
    assert [cache["id"] for cache in newest["data"]] == [made[2], made[1]]
    older = http.get("/v1/caching", params={"limit": 1, "after": made[1]}).json()
    assert [cache["id"] for cache in older["data"]] == [made[0]]
    oldest_first = http.get("/v1/caching", params={"order": "asc", "before": made[1]}).json()
    assert oldest_first["data"][-1]["id"] == made[0]


def test_models_lists_the_aliases(sdk: openai.OpenAI) -> None:
    names = [model.id for model in sdk.models.list()]
    assert {"moonshot-v1", "moonshot-v1-8k", "moonshot-v1-32k", "moonshot-v1-128k"} < set(names)


def test_many_chats_for_a_pending_cache_wait_for_one_prefill(
    server: ServerProcess, sdk: openai.OpenAI
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    long = [{"role": "system", "content": " ".join(f"Herd {n}." for n in range(900))}]
    before = server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")
    cache = create_cache(server, messages=long)

    def chat(number: int) -> int:
        completion = sdk.chat.completions.create(
            model="moonshot-v1",
            messages=[cache_message(cache), {"role": "user", "content": f"Question {number}"}],
            max_tokens=2,
        )
        return completion.usage.model_extra["cached_tokens"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(chat, range(8))) == [cache["tokens"]] * 8
    after = server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")
    assert cache["tokens"] - TURN_MARKS <= after - before <= cache["tokens"]
