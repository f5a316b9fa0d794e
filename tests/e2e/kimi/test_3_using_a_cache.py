"""docs/moonshot-api.md, section 3: using a cache, by message and by header."""

import itertools
import time
from collections.abc import Callable

import httpx
import openai
import pytest

Create = Callable[..., dict]
USER = {"role": "user", "content": "Is the quay clear?"}
_names = (f"use-{n}" for n in itertools.count())


def ask(
    http: httpx.Client, messages: list[dict], headers: dict | None = None, **fields: object
) -> httpx.Response:
    body = {"model": "moonshot-v1-8k", "messages": messages, "max_tokens": 3, "temperature": 0}
    return http.post("/v1/chat/completions", json=body | fields, headers=headers)


def by_header(cache: dict, **more: str) -> dict:
    return {"X-Msh-Context-Cache": cache["id"]} | more


def cached(reply: httpx.Response) -> int:
    assert reply.status_code == 200, reply.text
    return reply.json()["usage"]["cached_tokens"]


# By message


def test_a_tag_stands_for_its_cache(http: httpx.Client, create: Create, held) -> None:
    name = next(_names)
    cache = create(tags=[name])
    reply = ask(http, [{"role": "cache", "content": f"tag={name};reset_ttl=600"}, USER])
    assert cached(reply) == held(cache)
    assert reply.headers["Msh-Context-Cache-Id"] == cache["id"]


def test_an_unknown_tag_is_a_404(http: httpx.Client) -> None:
    assert ask(http, [{"role": "cache", "content": "tag=nobody"}, USER]).status_code == 404


@pytest.mark.parametrize("content", ["cache_id=a;tag=b", "tag=b;dry_run=2", "tag=b;dry_run=yes"])
def test_a_contradictory_cache_message_is_a_400(content: str, http: httpx.Client) -> None:
    reply = ask(http, [{"role": "cache", "content": content}, USER])
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content"


def test_a_dry_run_says_what_a_cache_would_do_and_does_nothing(
    http: httpx.Client, create: Create
) -> None:
    cache = create(ttl=600)
    reply = ask(
        http,
        [{"role": "cache", "content": f"cache_id={cache['id']};reset_ttl=9000;dry_run=1"}, USER],
    )
    assert reply.json()["choices"] == []
    assert reply.json()["usage"]["completion_tokens"] == 0
    assert cached(reply) == cache["tokens"]
    assert reply.headers["Msh-Context-Cache-Token-Saved"] == str(cache["tokens"])
    assert http.get(f"/v1/caching/{cache['id']}").json() == cache


# By header


def test_repeated_messages_use_the_cache(http: httpx.Client, create: Create, held) -> None:
    cache = create(ttl=60)
    headers = by_header(cache, **{"X-Msh-Context-Cache-Reset-TTL": "7000"})
    reply = ask(http, [*cache["messages"], USER], headers)
    assert cached(reply) == held(cache)
    end = http.get(f"/v1/caching/{cache['id']}").json()["expired_at"]
    assert end >= cache["created_at"] + 7000
    assert reply.headers["Msh-Context-Cache-Token-Exp"] == str(end)
    assert "X-Context-Cache-Miss" not in reply.headers


def test_both_forms_answer_alike(http: httpx.Client, create: Create) -> None:
    cache = create()
    by_message = ask(http, [{"role": "cache", "content": f"cache_id={cache['id']}"}, USER])
    repeated = ask(http, [*cache["messages"], USER], by_header(cache))
    assert by_message.json()["choices"] == repeated.json()["choices"]
    assert by_message.json()["usage"] == repeated.json()["usage"]


def test_a_dry_run_by_header(http: httpx.Client, create: Create) -> None:
    cache = create()
    headers = by_header(cache, **{"X-Msh-Context-Cache-DryRun": "1"})
    reply = ask(http, [*cache["messages"], USER], headers)
    assert reply.json()["choices"] == []
    assert cached(reply) == cache["tokens"]


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Msh-Context-Cache-Reset-TTL", "soon"), ("X-Msh-Context-Cache-DryRun", "maybe")],
)
def test_a_wrong_header_is_a_400_that_names_it(
    header: str, value: str, http: httpx.Client, create: Create
) -> None:
    cache = create()
    reply = ask(http, [*cache["messages"], USER], by_header(cache, **{header: value}))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == header


# A miss explains itself


def test_a_changed_message_is_named_and_served_uncached(http: httpx.Client, create: Create) -> None:
    cache = create(
        messages=[{"role": "system", "content": "One."}, USER, {"role": "assistant", "content": "Yes."}]
    )
    changed = [*cache["messages"][:1], {"role": "user", "content": "Or not?"}, *cache["messages"][2:]]
    reply = ask(http, [*changed, USER], by_header(cache))
    assert reply.headers["X-Context-Cache-Miss"] == "messages_changed; index=1"
    assert cached(reply) == 0
    shorter = ask(http, [*cache["messages"][:1], USER], by_header(cache))
    assert shorter.headers["X-Context-Cache-Miss"] == "messages_changed; index=2"


def test_changed_tools_are_a_miss(http: httpx.Client, create: Create) -> None:
    cache = create()
    tools = [{"type": "function", "function": {"name": "look"}}]
    reply = ask(http, [*cache["messages"], USER], by_header(cache), tools=tools)
    assert reply.headers["X-Context-Cache-Miss"] == "tools_changed"
    assert cached(reply) == 0


def test_an_expired_cache_is_a_miss_by_header_and_an_error_by_message(
    http: httpx.Client, create: Create
) -> None:
    cache = create(ttl=1)
    while http.get(f"/v1/caching/{cache['id']}").json()["status"] != "inactive":
        time.sleep(0.05)
    repeated = ask(http, [*cache["messages"], USER], by_header(cache))
    assert repeated.headers["X-Context-Cache-Miss"] == "expired"
    assert cached(repeated) == 0
    refused = ask(http, [{"role": "cache", "content": f"cache_id={cache['id']}"}, USER])
    assert refused.status_code == 400
    assert refused.headers["X-Context-Cache-Miss"] == "expired"


def test_an_unknown_cache_is_a_404_in_both_forms(http: httpx.Client) -> None:
    nobody = {"id": "cache-00000000000000000000"}
    for reply in (
        ask(http, [USER], by_header(nobody)),
        ask(http, [{"role": "cache", "content": f"cache_id={nobody['id']}"}, USER]),
    ):
        assert reply.status_code == 404
        assert reply.headers["X-Context-Cache-Miss"] == "not_found"


def test_strict_turns_a_miss_into_a_409(
    http: httpx.Client, sdk: openai.OpenAI, create: Create, held
) -> None:
    cache = create()
    headers = by_header(cache, **{"X-Context-Cache-Strict": "1"})
    assert cached(ask(http, [*cache["messages"], USER], headers)) == held(cache)
    reply = ask(http, [USER], headers)
    assert reply.status_code == 409
    assert reply.json()["error"]["code"] == "cache_miss"
    assert reply.headers["X-Context-Cache-Miss"] == "messages_changed; index=0"
    with pytest.raises(openai.ConflictError):
        sdk.chat.completions.create(model="moonshot-v1", messages=[USER], extra_headers=headers)
