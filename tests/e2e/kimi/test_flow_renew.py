"""The flow of a knowledge base that is renewed behind a stable tag while chats go on."""

import itertools
import threading
from collections.abc import Callable

import httpx

from mooring.testing import ServerProcess

Create = Callable[..., dict]
USER = {"role": "user", "content": "Is the quay clear?"}
_names = (f"renew-{n}" for n in itertools.count())


def ask(http: httpx.Client, messages: list[dict]) -> httpx.Response:
    body = {"model": "moonshot-v1-8k", "messages": messages, "max_tokens": 3}
    return http.post("/v1/chat/completions", json=body)


def test_a_tag_is_renewed_while_chats_go_on(http: httpx.Client, create: Create) -> None:
    name = next(_names)
    first = create(tags=[name])
    for _ in range(3):
        use = [{"role": "cache", "content": f"tag={name}"}, USER]
        with http.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "moonshot-v1", "messages": use, "max_tokens": 40, "stream": True},
        ) as running:
            lines = running.iter_lines()
            next(lines)
            renewed = create(tags=[name])
            assert http.delete(f"/v1/caching/{first['id']}").status_code == 200
            assert list(lines)[-2] == "data: [DONE]"
        assert ask(http, use).headers["Msh-Context-Cache-Id"] == renewed["id"]
        first = renewed


def test_no_chat_fails_or_misses_while_the_base_is_renewed(
    server: ServerProcess, create: Create, http: httpx.Client
) -> None:
    """The new cache is ready before the tag is bound to it, and the old one goes after that."""
    name = next(_names)
    old = create(tags=[name])
    done, replies = threading.Event(), []

    def chat() -> None:
        use = [{"role": "cache", "content": f"tag={name};reset_ttl=600"}, USER]
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not done.is_set():
                replies.append(ask(client, use))

    chatting = [threading.Thread(target=chat) for _ in range(3)]
    for thread in chatting:
        thread.start()
    try:
        for _ in range(4):
            new = create()
            http.post("/v1/caching/refs/tags", json={"tag": name, "cache_id": new["id"]})
            old = new
    finally:
        done.set()
        for thread in chatting:
            thread.join()
    assert len(replies) > 4
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["cached_tokens"] > 0
        assert "X-Context-Cache-Miss" not in reply.headers
    assert (
        ask(http, [{"role": "cache", "content": f"tag={name}"}, USER]).headers["Msh-Context-Cache-Id"]
        == old["id"]
    )
