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
from mooring.core.prefix import Prefix
from mooring.engine.interface import Generation, Grammar, Sampling
from mooring.engine.process.messages import Generate, PackedPrefix, pack, unpack

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=300).map(tuple)


def travelled(message: object) -> object:
    return pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


@given(TOKENS, TOKENS, st.booleans())
def test_generation_arrives_as_it_was_sent(prompt: tuple, kept: tuple, has_prefix: bool) -> None:
    sampling = Sampling(9, temperature=0.5, seed=3, stop=("a",), top_logprobs=2)
    grammar, marks = Grammar("start: /a/", "tools"), frozenset({"<|im_end|>"})
    prefix = Prefix("tenant", kept) if has_prefix else None
    sent = Generation(prompt, prefix, sampling, grammar, marks)
    assert travelled(Generate.of(7, sent)).unpacked() == sent


@given(TOKENS)
def test_prefix_arrives_with_its_id(kept: tuple) -> None:
    sent = Prefix("tenant", kept)
    arrived = travelled(PackedPrefix.of(sent)).unpacked()
    assert arrived == sent
    assert arrived.id == sent.id == replace(arrived).id
    assert unpack(pack(kept)) == kept


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
