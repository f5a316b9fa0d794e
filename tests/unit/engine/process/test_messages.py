"""What is sent is what arrives."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.errors import (
    EngineFailed,
    InvalidRequest,
    ModelUnreadable,
    MooringError,
    Overloaded,
    PromptTooLong,
    StartRefused,
    StorageFull,
)
from mooring.core.prefix import Prefix, pack, unpack
from mooring.engine.interface import Generation, Grammar, Sampling
from mooring.engine.process.messages import Generate, PackedPrefix
from mooring.engine.process.unpacking import Unpacking

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=300).map(tuple)


def travelled(message: object) -> object:
    return pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


@given(TOKENS, TOKENS, st.booleans())
def test_generation_arrives_as_it_was_sent(prompt: tuple, kept: tuple, has_prefix: bool) -> None:
    sampling = Sampling(9, temperature=0.5, seed=3, stop=("a",), top_logprobs=2)
    grammar, marks = Grammar("start: /a/", "tools"), frozenset({"<|im_end|>"})
    prefix = Prefix("tenant", kept) if has_prefix else None
    sent = Generation(prompt, prefix, sampling, grammar, marks)
    assert Unpacking().generation(travelled(Generate.of(7, sent))) == sent


@given(TOKENS)
def test_prefix_arrives_with_its_id(kept: tuple) -> None:
    sent = Prefix("tenant", kept)
    arrived = Unpacking().prefix(travelled(PackedPrefix.of(sent)))
    assert arrived == sent
    assert arrived.id == sent.id == replace(arrived).id
    assert arrived.label == replace(arrived).label
    assert unpack(pack(kept)) == kept


def test_prompts_on_a_prefix_share_its_tokens_and_few_prefixes_are_remembered() -> None:
    unpacking = Unpacking(most_tokens=100)
    first, second = (Prefix(scope, tuple(range(1000, 1060))) for scope in ("north", "south"))
    sent = Generation((*first.tokens, 7), first, Sampling(1))
    arrived = [unpacking.generation(travelled(Generate.of(call, sent))) for call in (1, 2)]
    assert arrived == [sent, sent]
    assert arrived[0].prefix is arrived[1].prefix
    assert arrived[0].prompt[0] is arrived[1].prompt[0]
    unpacking.prefix(PackedPrefix.of(second))
    assert unpacking.prefix(PackedPrefix.of(first)) is not arrived[0].prefix
    assert unpacking.prefix(PackedPrefix.of(first)) == first


@pytest.mark.parametrize(
    "kind",
    [
        EngineFailed,
        InvalidRequest,
        ModelUnreadable,
        Overloaded,
        PromptTooLong,
        StartRefused,
        StorageFull,
    ],
)
def test_error_arrives_with_its_message_and_field(kind: type[MooringError]) -> None:
    arrived = travelled(kind("that was wrong", param="messages"))
    assert type(arrived) is kind
    assert (str(arrived), arrived.message, arrived.param) == (*["that was wrong"] * 2, "messages")
