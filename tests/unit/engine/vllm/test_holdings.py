"""What workers are believed to hold."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.core.prefix import Tokens, common_length
from mooring.engine.vllm.holdings import CHUNK_TOKENS, Holdings

LONG: Tokens = tuple(range(1000))


def test_a_worker_holds_the_whole_chunks_of_what_was_sent_there() -> None:
    holdings = Holdings()
    holdings.record("a", "tenant", LONG)
    assert holdings.held_tokens("tenant", LONG) == {"a": 1000 // CHUNK_TOKENS * CHUNK_TOKENS}
    assert holdings.held_tokens("tenant", (*LONG[:300], 7, *LONG[300:])) == {"a": 2 * CHUNK_TOKENS}
    assert holdings.held_tokens("tenant", LONG[1:]) == {}
    assert holdings.held_tokens("another", LONG) == {}


def test_a_chunk_in_the_middle_is_worth_nothing_without_what_is_before_it() -> None:
    holdings = Holdings()
    holdings.record("a", "tenant", LONG[:300])
    holdings.record("b", "tenant", LONG)
    assert holdings.held_tokens("tenant", LONG) == {"a": 256, "b": 896}


def test_a_worker_that_restarted_holds_nothing() -> None:
    holdings = Holdings()
    for worker in ("a", "b"):
        holdings.record(worker, "tenant", LONG)
    holdings.forget("a")
    assert set(holdings.held_tokens("tenant", LONG)) == {"b"}


def test_what_was_not_seen_for_long_is_forgotten() -> None:
    holdings = Holdings(most_chunks=10)
    holdings.record("a", "tenant", LONG)
    holdings.record("a", "other", LONG)
    assert holdings.held_tokens("other", LONG)
    assert not holdings.held_tokens("tenant", LONG)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_held_is_never_more_than_is_shared(first: list[int], second: list[int]) -> None:
    one, other = (tuple(each for each in tokens for _ in range(64)) for tokens in (first, second))
    holdings = Holdings()
    holdings.record("a", "tenant", one)
    held = holdings.held_tokens("tenant", other).get("a", 0)
    assert held == common_length(one, other) // CHUNK_TOKENS * CHUNK_TOKENS
