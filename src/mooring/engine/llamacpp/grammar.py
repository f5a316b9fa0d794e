"""Answers that match a grammar: which tokens may come next, by llguidance.

A matcher walks along with one choice. Before each draw it sets the logits of all tokens that the grammar
does not allow to minus infinity, so that a grammar holds with any model and any sampling.
"""

import threading
from functools import cached_property

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from mooring.core.errors import InvalidRequest
from mooring.engine.interface import Grammar
from mooring.engine.llamacpp.binding import Model

_MAX_CHARACTERS = 1 << 16
_FORCED_BYTES = 512  # far more than the next token takes
_NO_LOGIT = np.float32(-np.inf)


class Grammars:
    """Compiles grammars for one model's vocabulary. Safe from any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> "Matcher":
        """Takes milliseconds to about a second.

        Raises:
            InvalidRequest: it is no grammar, uses what llguidance does not know, or is too large.
        """
        if len(grammar.text) > _MAX_CHARACTERS:
            raise _wrong(grammar, f"larger than {_MAX_CHARACTERS} characters")
        if not self._model.eos_tokens:
            raise _wrong(grammar, "this model has no token that ends an answer")
        with self._lock:  # made once: it takes a second for a large vocabulary
            tokenizer = self._tokenizer
        native = LLMatcher(
            tokenizer, grammar.text, log_level=0, limits=LLParserLimits(verbose_errors=False)
        )
        if native.is_error():
            raise _wrong(grammar, native.get_error())
        return Matcher(grammar, native, self._model.vocab_size)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        wrapper = TokenizerWrapper(_Vocabulary(self._model))
        return LLTokenizer(wrapper, eos_token=self._model.eos_tokens)


class Matcher:
    """A grammar, and how far one answer has come in it."""

    def __init__(self, grammar: Grammar, native: LLMatcher, vocabulary: int) -> None:
        self._grammar = grammar
        self._native = native
        self._vocabulary = vocabulary
        self._mask = np.zeros(-(-vocabulary // 32), np.uint32)

    def fork(self) -> "Matcher":
        """Another answer, from here on."""
        return Matcher(self._grammar, self._native.deep_copy(), self._vocabulary)

    def restrict(self, logits: NDArray[np.float32]) -> None:
        """Forbid, in place, the tokens that cannot come next; `logits` has the shape [vocab].

        Raises:
            InvalidRequest: the grammar has become too complex to go on, or allows nothing at all.
        """
        self._native.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._vocabulary]
        logits[allowed == 0] = _NO_LOGIT

    def accept(self, token: int) -> None:
        """The answer goes on with this token. Raises InvalidRequest as `restrict` does."""
        self._native.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Nothing can follow but the end."""
        return self._native.is_stopped()

    def _check(self) -> None:
        if self._native.is_error():
            raise _wrong(self._grammar, self._native.get_error())


class _Vocabulary:
    """A model's tokens as llguidance wants to see them."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.eos_token_id = model.eos_tokens[0]
        self.bos_token_id = None
        tokens = range(model.vocab_size)
        self.tokens = [model.piece(token, control=True) for token in tokens]
        self.special_token_ids = [token for token in tokens if model.is_control(token)]

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of what the grammar forces next.

        Only the first of them counts, and this runs in a step: a constant of 30,000 letters must not
        be tokenised whole for each of its tokens.
        """
        start = text[:_FORCED_BYTES].decode(errors="ignore")
        return list(self._model.tokenize(start, add_bos=False, control=False))


def _wrong(grammar: Grammar, problem: str) -> InvalidRequest:
    first_line = problem.strip().partition("\n")[0]
    if first_line.startswith("NoExtension"):  # llguidance's word for a schema without an instance
        first_line = "it describes no text at all"
    return InvalidRequest(
        f"{grammar.param}: no answer can be held to it: {first_line}", param=grammar.param
    )
