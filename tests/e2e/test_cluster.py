"""A server over two real vLLM workers: contexts are used on all, and survive what happens to one."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import BLOCK, SELDOM_CHECKED, Server, cached, chat, held, pinned, running, until

pytestmark = pytest.mark.vllm


@pytest.fixture
def server(cluster, tmp_path: Path) -> Iterator[Server]:
    with running(cluster, tmp_path) as here:
        until(lambda: not any(pinned(url) for url in here.workers()))  # what others left is released
        yield here


def test_a_cache_made_on_one_worker_is_used_on_all(server: Server) -> None:
    cache = server.create()
    for drained in (None, *server.workers()):
        for url in server.workers():
            server.drain(url, url == drained)
        before = server.evaluated()
        reply = server.ask(cache)
        assert cached(reply) == held(cache)
        assert reply.headers["Msh-Context-Cache-Token-Saved"] == str(held(cache))
        usage = reply.json()["usage"]
        assert server.evaluated() - before == usage["prompt_tokens"] - held(cache)
    assert server.metric("mooring_prompt_tokens_cached_total", source="shared") == held(cache)
    assert server.metric("mooring_prefix_recomputed_total") == 0


def test_a_server_that_starts_again_finds_its_caches(cluster, tmp_path: Path) -> None:
    with running(cluster, tmp_path) as server:
        cache = server.create()
    with running(cluster, tmp_path) as server:
        assert cached(server.ask(cache)) == held(cache)
        assert server.metric("mooring_prefix_recomputed_total") == 0


def test_what_is_deleted_leaves_the_shared_tier(server: Server, cluster) -> None:
    before = cluster.stored()
    cache = server.create()
    assert cluster.stored() > before
    assert server.http.delete(f"/v1/caching/{cache['id']}").status_code == 200
    until(lambda: cluster.stored() == before)


def test_a_pinned_cache_is_hit_every_time_however_full_the_pool(server: Server) -> None:
    _, *others = server.workers()
    for url in others:
        server.drain(url)
    cache = server.create()
    unnamed = "Rules that nobody named. " + secrets.token_hex(8) + " Mind the crane. " * 100

    def say(text: str) -> int:
        message = {"role": "user", "content": text}
        body = {"model": "moonshot-v1", "messages": [message], "max_tokens": 1, "temperature": 0}
        return cached(server.http.post("/v1/chat/completions", json=body))

    assert say(unnamed) == 0
    assert say(unnamed) >= 10 * BLOCK
    for _ in range(5):
        for _ in range(3):  # the pool has 5,120 tokens
            say(secrets.token_hex(900))
        assert cached(server.ask(cache)) == held(cache)
    assert say(unnamed) == 0
    assert server.metric("mooring_prompt_tokens_cached_total", source="shared") == 0
    assert server.metric("mooring_prefix_recomputed_total") == 0


def test_a_worker_that_is_killed_takes_only_running_answers_with_it(server: Server, cluster) -> None:
    idle, cache = server.create(60), server.create(60)
    victim, survivor = server.workers()
    server.drain(survivor)
    for each in (idle, cache):  # both are held by the one that will die
        assert cached(server.ask(each)) == held(each)
    body = chat(cache, "Tell all.", max_tokens=1400, temperature=1, n=4, stream=True)
    with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        next(line for line in lines if '"content":""' not in line)
        cluster.workers[0].freeze()  # it must not come to its end before it is killed
        server.drain(survivor, drained=False)
        cluster.workers[0].kill()
        rest = list(lines)
    assert "[DONE]" not in rest[-1], f"the worker ended {len(rest)} chunks before it was frozen"
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert error["code"] == "engine_restarted"
    assert "send the request again" in error["message"]

    before = server.evaluated()
    reply = server.ask(cache)
    assert cached(reply) == held(cache)
    assert server.evaluated() - before == reply.json()["usage"]["prompt_tokens"] - held(cache)
    assert server.metric("mooring_prefix_recomputed_total") == 0
    assert server.workers()[victim]["state"] == "down"
    assert server.http.get("/health").status_code == 200

    server.drain(survivor)  # now there is nobody
    refused = server.ask(cache)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_unavailable"
    assert f"{survivor} is draining" in refused.json()["error"]["message"]
    assert f"{victim} is down" in refused.json()["error"]["message"]
    assert server.http.get("/health").status_code == 503

    cluster.restart(0).wait()
    until(lambda: server.workers()[victim]["state"] == "up")
    # What nobody had used elsewhere since is loaded before anybody asks for it.
    until(lambda: f"worker warmed worker={victim}" in server.process.log_path.read_text())
    until(lambda: server.workers()[victim]["pinned_prefixes"])
    shared = server.metric("mooring_prompt_tokens_cached_total", source="shared")
    assert cached(server.ask(idle)) == held(idle)
    assert server.metric("mooring_prompt_tokens_cached_total", source="shared") == shared
    assert server.metric("mooring_prefix_recomputed_total") == 0


def test_a_request_to_a_worker_that_has_just_died_is_answered_by_another(
    cluster, tmp_path: Path
) -> None:
    with running(cluster, tmp_path, SELDOM_CHECKED) as server:
        victim, other = server.workers()
        server.drain(other)
        cache = server.create()
        server.drain(other, drained=False)
        assert cached(server.ask(cache)) == held(cache)
        cluster.workers[0].kill()
        assert cached(server.ask(cache)) == held(cache)
        assert server.metric("mooring_requests_retried_total") == 1
        assert server.workers()[victim]["state"] == "down"
        assert "cannot be reached" in server.workers()[victim]["reason"]
    cluster.restart(0)
