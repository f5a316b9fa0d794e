"""Sequences that nobody works on any more, kept for whoever goes on from there.

They leave the buffer when something else runs: attention costs every step as much as the highest used
cell, and what they hold is in the store.
"""

from mooring.core.prefix import TOKEN_BYTES
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.saving import Saving
from mooring.engine.llamacpp.sequence import Sequence


class Idle:
    """Oldest first."""

    def __init__(self, buffer: Buffer, prefill: Prefill, saving: Saving) -> None:
        self._buffer = buffer
        self._prefill = prefill
        self._saving = saving
        self._sequences: list[Sequence] = []

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._sequences

    def add(self, sequence: Sequence, label: bytes) -> None:
        """Its work is done; `label` is what it holds now."""
        sequence.tokens = label[: sequence.done * TOKEN_BYTES]
        self._buffer.cut(sequence, sequence.done)
        self._sequences.append(sequence)

    def clear(self, *, besides: Sequence | None = None) -> None:
        """Let go of what is saved and what nobody is about to share."""
        for sequence in list(self._sequences):
            if sequence is not besides and not self._saving.exporting(sequence):
                self._drop_unwanted(sequence)

    def evict_one(self, *, besides: Sequence | None) -> bool:
        """Let go of one more, saving what is left of it first; False when there is none."""
        for sequence in self._sequences:
            if sequence is not besides and not self._prefill.wanted(sequence):
                self._saving.finish(sequence)
                self._drop(sequence)
                return True
        return False

    def trim(self, sequence: Sequence, end: int) -> None:
        """Let go of all but the first `end` tokens of one, saving it first."""
        self._saving.finish(sequence)
        sequence.tokens = sequence.tokens[: end * TOKEN_BYTES]
        self._buffer.cut(sequence, end)

    def _drop_unwanted(self, sequence: Sequence) -> None:
        if not self._prefill.wanted(sequence):
            self._drop(sequence)

    def _drop(self, sequence: Sequence) -> None:
        self._sequences.remove(sequence)
        self._buffer.close(sequence)
