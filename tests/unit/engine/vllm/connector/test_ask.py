"""Whether a request's prompt is what its order says."""

from types import SimpleNamespace

import pytest

from mooring.core.prefix import Prefix
from mooring.engine.vllm.connector.ask import read_ask
from mooring.engine.vllm.connector.messages import Code, Stat

BLOCK = 16
TOKENS = tuple(range(100, 150))
KEPT = Prefix("tenant", TOKENS)


def request(**other):
    order = {"use": KEPT.id, "tokens": len(KEPT), "lease_s": 60}
    fields = {
        "request_id": "1",
        "prompt_token_ids": [*TOKENS, 7],
        "cache_salt": "tenant",
        "kv_transfer_params": {"mooring": order},
    }
    return SimpleNamespace(**fields | other)


def problem(**other):
    ask = read_ask(request(**other), BLOCK)
    return None if ask.problem is None else ask.problem.code


def test_prompt_that_begins_with_the_prefix_is_right():
    ask = read_ask(request(), BLOCK)
    assert (ask.problem, ask.full_tokens, ask.context) == (None, 48, KEPT.id)


def test_prompt_that_is_the_prefix_is_right():
    assert problem(prompt_token_ids=list(TOKENS)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"prompt_token_ids": [*TOKENS[:-1], 7, 8]},
        {"prompt_token_ids": list(TOKENS[:-1])},
        {"prompt_token_ids": None},
        {"cache_salt": "another tenant"},
        {"cache_salt": ""},
        {"cache_salt": None},
        {"lora_request": object()},
        {"mm_features": [object()]},
        {"prompt_is_token_ids": [True]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_anything_else_is_a_mismatch(other):
    assert problem(**other) is Code.MISMATCH


def test_prefix_within_one_block_is_too_short():
    short = Prefix("tenant", TOKENS[: BLOCK - 1])
    order = {"keep": short.id, "tokens": len(short), "lease_s": 60}
    assert problem(kv_transfer_params={"mooring": order}) is Code.TOO_SHORT


def test_order_that_cannot_be_read_is_a_problem_of_the_request():
    assert problem(kv_transfer_params={"mooring": 5}) is Code.MALFORMED


def test_request_without_order_is_none_of_ours():
    assert read_ask(request(kv_transfer_params=None), BLOCK) is None


def test_stat_needs_no_prompt():
    ask = read_ask(request(kv_transfer_params={"mooring": {"stat": True}}, cache_salt=None), BLOCK)
    assert (ask.order, ask.problem) == (Stat(), None)
