"""vLLM's chunks as the engine's events."""

import pytest

from mooring.core.usage import Usage
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    FinishReason,
    Generation,
    SampledToken,
    Sampling,
    TokenLogprob,
)
from mooring.engine.vllm.answer import Answer
from mooring.engine.vllm.vocabulary import Vocabulary
from mooring.testing import TINY_WIDE_HEADS, write_random_folder


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return Vocabulary(write_random_folder(tmp_path_factory.mktemp("folder"), TINY_WIDE_HEADS))


def answer(vocabulary: Vocabulary, marks: frozenset[str] = frozenset(), **sampling: object) -> Answer:
    drawn = Sampling(**{"max_tokens": 50} | sampling)  # type: ignore[arg-type]
    return Answer(Generation((5, 6, 7), None, drawn, marks=marks), vocabulary, cached_tokens=2)


def chunk(tokens: tuple[int, ...], index: int = 0, **more: object) -> dict:
    return {"choices": [{"index": index, "text": "", "token_ids": list(tokens)} | more]}


def test_characters_wait_for_all_their_bytes(vocabulary: Vocabulary) -> None:
    tokens = vocabulary.tokenize("🙂", add_bos=False, control=False)
    assert len(tokens) > 1
    came = answer(vocabulary)
    assert [event for token in tokens[:-1] for event in came.push(chunk((token,)))] == []
    assert list(came.push(chunk(tokens[-1:]))) == [Delta(0, "🙂")]


def test_an_end_has_no_text_but_counts(vocabulary: Vocabulary) -> None:
    came = answer(vocabulary)
    end = vocabulary.control_tokens["<|im_end|>"]
    text = vocabulary.tokenize("quay", add_bos=False, control=False)
    events = list(came.push(chunk((*text, end), finish_reason="stop")))
    assert events == [Delta(0, "quay"), ChoiceFinished(0, FinishReason.STOP, len(text) + 1)]
    assert came.complete
    assert came.ended
    assert came.finished() == Finished(Usage(3, 2, len(text) + 1))


def test_a_stop_string_and_what_follows_it_are_cut_off(vocabulary: Vocabulary) -> None:
    came = answer(vocabulary, stop=("ay",))
    tokens = vocabulary.tokenize("the quay is", add_bos=False, control=False)
    events = [event for token in tokens for event in came.push(chunk((token,)))]
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "the qu"
    assert isinstance(events[-1], ChoiceFinished)
    assert events[-1].reason is FinishReason.STOP
    assert not came.ended  # the worker has not seen it
    assert list(came.push(chunk((), finish_reason="stop", stop_reason="ay"))) == []
    assert came.ended


def test_the_last_token_before_a_stop_string_of_the_workers_is_text(vocabulary: Vocabulary) -> None:
    came = answer(vocabulary, stop=("zzz",))
    tokens = vocabulary.tokenize("quay", add_bos=False, control=False)
    events = list(came.push(chunk(tokens, finish_reason="stop", stop_reason="zzz")))
    assert events == [Delta(0, "quay"), ChoiceFinished(0, FinishReason.STOP, len(tokens))]


def test_what_was_held_back_comes_when_the_tokens_are_over(vocabulary: Vocabulary) -> None:
    came = answer(vocabulary, stop=("quays",))
    tokens = vocabulary.tokenize("quay", add_bos=False, control=False)
    assert list(came.push(chunk(tokens))) == []
    events = list(came.push(chunk((), finish_reason="length")))
    assert events == [Delta(0, "quay"), ChoiceFinished(0, FinishReason.LENGTH, len(tokens))]


def test_control_tokens_show_only_when_they_are_asked_for(vocabulary: Vocabulary) -> None:
    token = vocabulary.control_tokens["<|im_start|>"]
    assert list(answer(vocabulary).push(chunk((token,)))) == []
    marked = answer(vocabulary, frozenset({"<|im_start|>"}))
    assert list(marked.push(chunk((token,)))) == [Delta(0, "<|im_start|>")]


def test_choices_are_apart(vocabulary: Vocabulary) -> None:
    came = answer(vocabulary, choices=2)
    a, b = (vocabulary.tokenize(text, add_bos=False, control=False) for text in "ab")
    assert list(came.push(chunk(b, 1))) == [Delta(1, "b")]
    assert list(came.push(chunk(a, 0))) == [Delta(0, "a")]
    end = {"finish_reason": "length"}
    assert list(came.push(chunk((), 1, **end))) == [ChoiceFinished(1, FinishReason.LENGTH, 1)]
    assert not came.complete
    assert list(came.push(chunk((), 0, **end))) == [ChoiceFinished(0, FinishReason.LENGTH, 1)]
    assert came.complete
    assert came.finished().usage.completion_tokens == 2


def test_log_probabilities_have_bytes_and_the_best_first(vocabulary: Vocabulary) -> None:
    a, b, c = (vocabulary.tokenize(text, add_bos=False, control=False)[0] for text in "abc")
    top = {f"token_id:{a}": -3.0, f"token_id:{b}": -0.5, f"token_id:{c}": -1.0}
    logprobs = {"tokens": [f"token_id:{a}"], "token_logprobs": [-3.0], "top_logprobs": [top]}
    (event,) = answer(vocabulary, top_logprobs=2).push(chunk((a,), logprobs=logprobs))
    best = (TokenLogprob(b, b"b", -0.5), TokenLogprob(c, b"c", -1.0))
    assert event == Delta(0, "a", (SampledToken(TokenLogprob(a, b"a", -3.0), best),))
    (only,) = answer(vocabulary, top_logprobs=0).push(chunk((a,), logprobs=logprobs))
    assert only.logprobs[0].top == ()  # type: ignore[union-attr]
