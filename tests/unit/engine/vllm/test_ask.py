"""Under which salt a request runs, and what counts as cached."""

import pytest

from mooring.core.errors import InvalidRequest, PromptTooLong
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import Generation, Sampling
from mooring.engine.vllm.ask import Ask, make_ask

PREFIX = Prefix("tenant", tuple(range(100)))


def ask(prompt: Tokens, prefix: Prefix | None = None, scope: str | None = None, **how: bool) -> Ask:
    generation = Generation(prompt, prefix, Sampling(10), scope=scope)
    how = {"automatic": True} | how
    return make_ask(generation, context_tokens=1000, block_tokens=16, **how)


def test_a_prompt_that_begins_with_its_prefix_uses_it() -> None:
    whole, part = ask((*PREFIX.tokens, 7), PREFIX), ask((*PREFIX.tokens[:60], 7), PREFIX)
    assert (whole.used, whole.limit, whole.salt) == (PREFIX, 96, "tenant")
    assert (part.used, part.limit, part.salt) == (None, 48, "tenant")


def test_the_last_token_is_never_cached() -> None:
    assert ask(PREFIX.tokens[:96], Prefix("tenant", PREFIX.tokens[:96])).limit == 95
    assert ask((1, 2, 3), scope="tenant").limit == 2


def test_without_a_scope_nothing_is_shared() -> None:
    first, second = ask((1, 2)), ask((1, 2))
    assert first.salt != second.salt
    assert not first.shared
    assert first.limit == 0


def test_with_automatic_reuse_off_only_what_was_named_counts() -> None:
    named = ask((*PREFIX.tokens, 7, 8, 9), PREFIX, "tenant", automatic=False)
    unnamed = ask((*PREFIX.tokens, 7), None, "tenant", automatic=False)
    assert named.cached(102) == 96
    assert unnamed.cached(64) == 0
    assert not unnamed.shared
    assert ask((*PREFIX.tokens, 7, 8, 9), PREFIX, "tenant").cached(102) == 102


def test_what_was_computed_for_the_request_itself_was_not_cached() -> None:
    found = ask((*PREFIX.tokens, 7), PREFIX)
    found.recomputed_tokens = 90
    assert found.cached(96) == 6
    found.recomputed_tokens = 100
    assert found.cached(96) == 0


def test_what_can_never_be_served_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="makes nothing"):
        ask(())
    with pytest.raises(PromptTooLong, match="1005 tokens"):
        ask(tuple(range(995)))
