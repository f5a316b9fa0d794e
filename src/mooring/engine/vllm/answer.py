"""One streamed answer: vLLM's chunks in, the engine's events out. No I/O.

Text is made here from token ids, so that whole characters, stop strings and control tokens are as with
the embedded engine, whatever vLLM makes of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mooring.core.usage import Usage
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    FinishReason,
    Generation,
    SampledToken,
    TokenLogprob,
)
from mooring.engine.text import TextStream
from mooring.engine.vllm.vocabulary import Vocabulary

_ID_PREFIX = "token_id:"
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


@dataclass
class _Choice:
    text: TextStream
    drawn: int = 0
    finished: bool = False
    ended: bool = False
    """The worker, too, is done with it."""


@dataclass
class Answer:
    """How far a generation's choices have come."""

    generation: Generation
    vocabulary: Vocabulary
    cached_tokens: int = 0
    """Set when the stream announces it."""
    choices: list[_Choice] = field(init=False)
    _visible: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        sampling = self.generation.sampling
        self.choices = [_Choice(TextStream(sampling.stop)) for _ in range(sampling.choices)]
        control = self.vocabulary.control_tokens
        self._visible = frozenset(control[m] for m in self.generation.marks if m in control)

    @property
    def complete(self) -> bool:
        return all(choice.finished for choice in self.choices)

    @property
    def ended(self) -> bool:
        """The worker has nothing more to say."""
        return all(choice.ended for choice in self.choices)

    @property
    def drawn(self) -> int:
        return sum(choice.drawn for choice in self.choices)

    def finished(self) -> Finished:
        """The last event, once all choices are complete."""
        return Finished(Usage(len(self.generation.prompt), self.cached_tokens, self.drawn))

    def push(self, chunk: Mapping[str, Any]) -> Iterator[Delta | ChoiceFinished]:
        """The events of one chunk of the stream."""
        for entry in chunk["choices"]:
            choice = self.choices[entry["index"]]
            choice.ended = choice.ended or entry.get("finish_reason") is not None
            if not choice.finished:
                yield from self._advance(entry, choice)

    def _advance(self, entry: Mapping[str, Any], choice: _Choice) -> Iterator[Delta | ChoiceFinished]:
        index, said = entry["index"], entry.get("finish_reason")
        tokens: list[int] = entry.get("token_ids") or []
        choice.drawn += len(tokens)
        # The model's own end has no text. A stop string does: it is found, and cut off, below.
        ended = said == "stop" and not isinstance(entry.get("stop_reason"), str)
        text = ""
        for token in tokens[:-1] if ended else tokens:
            text += choice.text.push(self.vocabulary.piece(token, control=token in self._visible))
            if choice.text.stopped:
                break
        reason = FinishReason.STOP if choice.text.stopped else _REASONS.get(said or "")
        if reason is not None and not choice.text.stopped:
            text += choice.text.finish()
        logprobs = self._logprobs(entry.get("logprobs"))
        if text or logprobs:
            yield Delta(index, text, logprobs)
        if reason is not None:
            choice.finished = True
            yield ChoiceFinished(index, reason, choice.drawn)

    def _logprobs(self, entry: Mapping[str, Any] | None) -> tuple[SampledToken, ...]:
        wanted = self.generation.sampling.top_logprobs
        if entry is None or wanted is None:
            return ()
        sampled = []
        for token, logprob, top in zip(
            entry["tokens"], entry["token_logprobs"], entry["top_logprobs"], strict=True
        ):
            best = sorted((top or {}).items(), key=lambda each: -each[1])[:wanted]
            candidates = tuple(self._candidate(text, value) for text, value in best)
            sampled.append(SampledToken(self._candidate(token, logprob), candidates))
        return tuple(sampled)

    def _candidate(self, text: str, logprob: float) -> TokenLogprob:
        token = int(text.removeprefix(_ID_PREFIX))
        return TokenLogprob(token, self.vocabulary.piece(token), logprob)
