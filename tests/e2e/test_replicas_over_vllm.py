"""The whole: two servers on one PostgreSQL, over the same two vLLM workers and one shared tier."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from clusters import ADMIN, BLOCK, Server, begun, cached, chat, ended, held, rules, until
from ledgers import lines
from load import Load
from pairs import SWEEP_S, Pair
from postgresql import PostgresServer

from mooring.core.charge import ChargeKind

pytestmark = pytest.mark.vllm

OUTAGE_S = 10


@pytest.fixture(scope="module")
def both(
    two_workers, registry: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(two_workers, registry.create(), tmp_path_factory.mktemp("servers"), stack)


@pytest.fixture
def pair(both: Pair) -> Iterator[Pair]:
    """All workers serve, nothing was lost before, and nothing is lost in the test."""
    both.wait_for_workers()
    both.end_all()
    recomputed = both.recomputed
    yield both
    for server in both.servers:
        server.only(None)
    assert both.recomputed == recomputed


def at_once(*calls: Callable[[], object]) -> list:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


# Creation


def test_a_cache_made_on_one_server_is_used_through_both_on_all_workers(pair: Pair) -> None:
    computed = pair.computed
    cache = pair.one.create()
    assert held(cache) >= 10 * BLOCK
    pair.assert_used_everywhere(cache)
    assert pair.computed - computed == cache["tokens"]
    assert pair.charged(cache) == [cache["id"]]


def test_equal_contexts_made_on_both_at_once_are_computed_once(pair: Pair) -> None:
    computed, text = pair.computed, rules(200)
    made = at_once(lambda: pair.one.begin(text), lambda: pair.two.begin(text))
    made = [pair.two.when_ready(cache) for cache in made]
    tokens = made[0]["tokens"]
    # The second fill finds all whole blocks.
    assert pair.computed - computed == tokens + tokens - held(made[0])
    pair.assert_used_everywhere(*made)
    assert pair.charged(*made) == sorted(cache["id"] for cache in made)


def test_a_cache_is_used_through_the_other_server_while_it_is_being_filled(pair: Pair) -> None:
    computed, cache = pair.computed, pair.one.begin(rules(200))
    replies = at_once(*[lambda server=server: server.ask(cache) for server in pair.servers * 2])
    assert [cached(reply) for reply in replies] == [held(cache)] * 4
    assert pair.computed - computed == cache["tokens"]
    assert pair.charged(cache) == [cache["id"]]


# The end


@pytest.mark.parametrize("ending", ["deleted", "expired"])
def test_what_ends_on_one_server_ends_on_the_other_and_leaves_all_workers(
    pair: Pair, ending: str
) -> None:
    stored = pair.cluster.stored()
    cache = pair.one.create()
    pair.assert_used_everywhere(cache)
    (first,), (second,) = pair.pinned()
    assert first == second
    if ending == "deleted":
        assert pair.one.http.delete(f"/v1/caching/{cache['id']}").status_code == 200
        assert pair.two.http.get(f"/v1/caching/{cache['id']}").status_code == 404
        assert pair.two.ask(cache).status_code == 404
    else:
        use = {"role": "cache", "content": f"cache_id={cache['id']};reset_ttl=1"}
        body = chat(cache, "Is it?") | {"messages": [use, {"role": "user", "content": "Is it?"}]}
        cached(pair.one.http.post("/v1/chat/completions", json=body))
        until(lambda: pair.two.get(cache)["status"] == "inactive")
        refused = pair.two.ask(cache)
        assert 400 <= refused.status_code < 500, refused.text
    until(lambda: not any(pair.pinned()))
    until(lambda: pair.cluster.stored() <= stored)
    assert pair.charged(cache) == [cache["id"]]
    assert pair.charged(cache, kind=ChargeKind.STORAGE) == [cache["id"]]


def test_what_is_made_again_at_once_survives_the_other_servers_sweep(pair: Pair) -> None:
    text = rules()
    for first, second in (pair.servers, pair.servers[::-1]):
        cache = first.when_ready(first.begin(text))
        cached(second.ask(cache))
        assert first.http.delete(f"/v1/caching/{cache['id']}").status_code == 200
        again = first.when_ready(first.begin(text))
        time.sleep(4 * SWEEP_S)  # the other one has heard of the end by then
        pair.assert_used_everywhere(again)
        assert first.http.delete(f"/v1/caching/{again['id']}").status_code == 200


# Something is killed


@contextmanager
def making(server: Server) -> Iterator[list[dict]]:
    """Caches made one after the other as long as this is open; 503 is taken for an answer."""
    made: list[dict] = []
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            reply = server.try_to_begin(rules(60))
            if reply.status_code == 200:
                made.append(reply.json())
            else:
                assert reply.json()["error"]["code"] == "registry_unavailable", reply.text
            time.sleep(0.2)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        until(lambda: made)
        yield made
    finally:
        stop.set()
        thread.join()


def test_a_killed_server_takes_nothing_along_and_returns_to_the_same_state(pair: Pair) -> None:
    cache, body = pair.one.create(60), {"max_tokens": 1400, "temperature": 1, "n": 4, "stream": True}
    drawn = pair.of_workers("vllm:generation_tokens_total")
    with pair.one.http.stream(
        "POST", "/v1/chat/completions", json=chat(cache, "Tell all.", **body)
    ) as stream:
        chunks = (line for line in stream.iter_lines() if line.startswith("data: "))
        said = next(line for line in chunks if '"content":""' not in line)
        pair.one.process.kill()
        with pytest.raises(httpx.TransportError):
            list(chunks)
    assert cached(pair.two.ask(cache)) == held(cache)
    until(lambda: not pair.of_workers("vllm:num_requests_running"))  # and nobody draws on in vain
    assert pair.of_workers("vllm:generation_tokens_total") - drawn < 4 * 1400
    with making(pair.two) as made:
        pair.one = pair.start("one")
    made = [pair.two.when_ready(each) for each in made]
    assert pair.one.http.get("/v1/caching").json() == pair.two.http.get("/v1/caching").json()
    pair.assert_used_everywhere(cache, made[0], made[-1])
    for each in made:
        assert cached(pair.one.ask(each)) == held(each)
    assert pair.charged(cache, *made) == sorted(each["id"] for each in (cache, *made))
    answer = json.loads(said.removeprefix("data: "))["id"]
    assert answer not in {line.request_id for line in lines(pair.url)}


def test_what_a_killed_server_was_filling_is_filled_by_the_other(pair: Pair) -> None:
    cache = pair.one.begin(rules(200))
    pair.one.process.kill()
    pair.two.when_ready(cache)
    pair.one = pair.start("one")
    pair.assert_used_everywhere(cache)
    assert pair.charged(cache) == [cache["id"]]


def test_a_worker_that_is_killed_and_returns_serves_both_again(pair: Pair) -> None:
    caches = [server.create() for server in pair.servers]
    pair.cluster.workers[0].kill()
    for server in pair.servers:
        assert [cached(server.ask(cache)) for cache in caches] == [held(cache) for cache in caches]
    pair.cluster.restart(0)
    pair.wait_for_workers()
    pair.assert_used_everywhere(*caches)


# The database is away


def test_an_outage_of_the_registry_fails_cleanly_and_the_ledger_is_exact(
    pair: Pair, registry: PostgresServer
) -> None:
    cache = pair.one.create(60)
    pair.assert_used_everywhere(cache)
    before = {line.request_id for line in lines(pair.url)}
    urls = [server.process.url for server in pair.servers]
    with (
        Load(urls, chat(cache, "Is it?")) as load,
        making(pair.one) as by_one,
        making(pair.two) as by_two,
        ExitStack() as streams,
    ):
        load.until_answered(20)
        running = [begun(streams, server, cache) for server in pair.servers]
        registry.stop()
        time.sleep(OUTAGE_S)
        until(lambda: load.statuses[503])
        load.answered.update(ended(chunks) for chunks in running)  # answers go on without a registry
        assert all(server.metric("mooring_charges_waiting_bytes") for server in pair.servers)
        registry.start()
        load.until_answered(20)
    assert set(load.statuses) == {200, 503}
    for refusal in load.refusals:
        error = refusal.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "registry_unavailable")
        assert int(refusal.headers["Retry-After"]) >= 1
    until(lambda: not pair.metric("mooring_charges_waiting_bytes"))
    charged: dict[str, Counter[str]] = {}
    for line in lines(pair.url):
        if line.request_id not in before:
            charged.setdefault(line.request_id, Counter())[line.kind] += line.quantity
    assert charged == {name: expected(usage) for name, usage in load.answered.items()}
    for server in pair.servers:
        assert "Traceback" not in server.process.log_path.read_text()
    made = [pair.two.when_ready(each) for each in (*by_one, *by_two)]
    assert pair.charged(*made) == sorted(each["id"] for each in made)
    pair.assert_used_everywhere(cache, by_one[-1], by_two[-1])


def expected(usage: dict) -> Counter[str]:
    """What an answer that used a cache is charged for."""
    held_tokens = usage.get("cached_tokens", 0)
    return Counter(
        {
            ChargeKind.CALL: 1,
            ChargeKind.INPUT: usage["prompt_tokens"] - held_tokens,
            ChargeKind.CACHED_INPUT: held_tokens,
            ChargeKind.OUTPUT: usage["completion_tokens"],
        }
    )


# Limits


@contextmanager
def limited(pair: Pair, **limits: int) -> Iterator[None]:
    """The tenant of all these requests has limits."""
    tenants = "/admin/v1/tenants"
    pair.one.http.post(tenants, json={"id": "default"}, headers=ADMIN)  # it may be there already

    def change(limits: dict[str, int]) -> None:
        for server in pair.servers:  # each trusts what it knows for some seconds
            reply = server.http.patch(f"{tenants}/default", json={"limits": limits}, headers=ADMIN)
            assert reply.status_code == 200, reply.text

    change(limits)
    try:
        yield
    finally:
        change(dict.fromkeys(limits, 0))


def test_requests_a_minute_are_counted_over_both(pair: Pair) -> None:
    cache = pair.one.create()
    statuses: Counter[int] = Counter()
    with limited(pair, requests_per_minute=12):
        while statuses[429] < 4:
            statuses.update(server.ask(cache).status_code for server in pair.servers)
    assert set(statuses) == {200, 429}
    assert 12 <= statuses[200] <= 24  # as many again, if a minute has begun meanwhile


def test_requests_at_once_are_counted_over_both(pair: Pair) -> None:
    cache = pair.one.create(60)
    body = chat(cache, "Tell all.", max_tokens=1400, temperature=1, stream=True)
    with limited(pair, concurrent_requests=2):
        with ExitStack() as streams:
            for server in pair.servers:
                stream = server.http.stream("POST", "/v1/chat/completions", json=body)
                assert streams.enter_context(stream).status_code == 200
            assert {server.ask(cache).status_code for server in pair.servers} == {429}
        until(lambda: all(server.ask(cache).status_code == 200 for server in pair.servers))
