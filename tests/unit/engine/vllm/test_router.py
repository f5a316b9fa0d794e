"""Which worker serves a request: a pure function of what is known of them."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from mooring.engine.vllm.router import Standing, Wanted, choose, cost

tokens = st.integers(0, 200_000)
names = st.text("abcdefgh:/0123456789", min_size=1, max_size=8)
standings = st.builds(Standing, names, tokens, st.integers(0, 300), tokens)
clusters = st.lists(standings, min_size=1, max_size=6, unique_by=lambda each: each.name)
asks = st.builds(Wanted, st.integers(1, 200_000), tokens, st.binary(max_size=8))


def idle(name: str, held_tokens: int = 0) -> Standing:
    return Standing(name, waiting_tokens=0, running=0, held_tokens=held_tokens)


def test_the_holder_serves_when_all_are_equally_busy() -> None:
    wanted = Wanted(1000, 0, b"")
    assert choose([idle("a"), idle("b", 512), idle("c", 128)], wanted).name == "b"


def test_the_idlest_serves_when_all_hold_the_same() -> None:
    busy = Standing("a", waiting_tokens=300, running=0, held_tokens=512)
    drawing = Standing("b", waiting_tokens=0, running=3, held_tokens=512)
    assert choose([busy, drawing, idle("c", 512)], Wanted(1000, 0, b"")).name == "c"
    assert choose([busy, drawing], Wanted(1000, 0, b"")).name == "b"


def test_a_busy_holder_gives_way_only_when_waiting_is_worse_than_computing() -> None:
    wanted = Wanted(1000, 0, b"")
    assert choose([replace(idle("a", 900), waiting_tokens=800), idle("b")], wanted).name == "a"
    assert choose([replace(idle("a", 900), waiting_tokens=1000), idle("b")], wanted).name == "b"


def test_what_the_shared_tier_has_moves_more_easily_than_what_must_be_computed() -> None:
    holder = replace(idle("a", 1000), waiting_tokens=500)
    assert choose([holder, idle("b")], Wanted(1024, 0, b"")).name == "a"
    assert choose([holder, idle("b")], Wanted(1024, 1000, b"")).name == "b"


@given(clusters, asks)
def test_a_choice_is_one_of_the_best(workers: list[Standing], wanted: Wanted) -> None:
    best = choose(workers, wanted)
    assert best in workers
    assert cost(best, wanted) == min(cost(worker, wanted) for worker in workers)


@given(clusters, asks, st.randoms())
def test_everybody_who_sees_the_same_chooses_the_same(
    workers: list[Standing], wanted: Wanted, random: object
) -> None:
    shuffled = list(workers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(shuffled, wanted) == choose(workers, wanted)


@given(clusters, asks, st.integers(1, 100_000))
def test_more_load_elsewhere_changes_nothing(workers: list[Standing], wanted: Wanted, more: int) -> None:
    best = choose(workers, wanted)
    heavier = [
        worker if worker == best else replace(worker, waiting_tokens=worker.waiting_tokens + more)
        for worker in workers
    ]
    assert choose(heavier, wanted) == best


@given(clusters, asks)
def test_a_worker_that_goes_moves_only_what_was_its_own(workers: list[Standing], wanted: Wanted) -> None:
    best = choose(workers, wanted)
    for gone in workers:
        if gone != best:
            assert choose([worker for worker in workers if worker != gone], wanted) == best


@given(clusters, asks, st.integers(1, 100_000))
def test_holding_more_never_makes_a_worker_worse(
    workers: list[Standing], wanted: Wanted, more: int
) -> None:
    best = choose(workers, wanted)
    better = replace(best, held_tokens=best.held_tokens + more)
    assert choose([better if worker == best else worker for worker in workers], wanted) == better


@given(st.lists(names, min_size=2, max_size=5, unique=True))
def test_keys_spread_over_idle_workers(workers: list[str]) -> None:
    chosen = {
        choose([idle(name) for name in workers], Wanted(100, 0, b"%d" % key)).name for key in range(200)
    }
    assert chosen == set(workers)


@given(clusters, asks)
def test_a_request_costs_no_less_than_nothing_and_no_more_than_all_of_it(
    workers: list[Standing], wanted: Wanted
) -> None:
    assume(wanted.prompt_tokens > 0)
    for worker in workers:
        alone = replace(worker, waiting_tokens=0, running=0)
        assert 0 <= cost(alone, wanted) <= wanted.prompt_tokens
