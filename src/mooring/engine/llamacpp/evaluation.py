"""One step's run of the model, and what has to be put right when it fails or is interrupted."""

import logging
import time
from enum import Enum, auto

from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.rates import Rates
from mooring.engine.llamacpp.request import Ask
from mooring.engine.llamacpp.step import Rows

_log = logging.getLogger("mooring.evaluation")
_ABORTED = 2
_TELLING_TOKENS = 64
"""Batches with at least so many prompt tokens tell how fast the model reads."""


class Outcome(Enum):
    """What became of a batch."""

    DONE = auto()
    ABORTED = auto()
    """On purpose; every sequence is where it was."""
    FAILED = auto()
    """The native library could not do it; every sequence is where it was, unless states are `whole`."""


class Evaluation:
    """Runs batches. Another thread may interrupt it."""

    def __init__(self, context: DecodeContext, rates: Rates, *, whole: bool) -> None:
        """`whole`: an interruption would leave half-written states, also of others than the batch's."""
        self._context = context
        self._rates = rates
        self._whole = whole
        self._in_flight: frozenset[Ask] = frozenset()
        self.status = 0
        """llama.cpp's code of the last failure."""

    def interrupt(self, only: Ask | None = None) -> None:
        """Any thread: let the running batch come to nothing; with `only`, if it is all of that ask."""
        if not self._whole and (only is None or self._in_flight == {only}):
            self._context.abort()

    def run(self, rows: Rows) -> Outcome:
        """Evaluate the planned batch."""
        self._in_flight = frozenset(row.owner for row in rows)
        begun = time.perf_counter()
        status = self._context.decode()
        seconds = time.perf_counter() - begun
        self._in_flight = frozenset()
        if status == 0:
            if (tokens := sum(row.tokens for row in rows)) >= _TELLING_TOKENS:
                self._rates.prefill_tokens.measured(tokens, seconds)
            return Outcome.DONE
        self._context.clear_abort()
        if not self._whole:
            for row in rows:  # finished micro-batches stay; the step is planned again from where it was
                self._context.cut_sequence(row.sequence.id, row.sequence.done)
        if status == _ABORTED:
            return Outcome.ABORTED
        _log.error("llama_decode failed status=%d tokens=%d", status, len(self._context.batch))
        self.status = status
        return Outcome.FAILED
