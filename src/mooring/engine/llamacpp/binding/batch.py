"""The rows of one step."""

import ctypes
from collections.abc import Sequence

import numpy as np
from llama_cpp import llama_cpp as lib


class Batch:
    """Rows of (token, position, sequence, wants logits), filled through NumPy views."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.native = lib.llama_batch_init(capacity, 0, 1)
        self._token = np.ctypeslib.as_array(self.native.token, (capacity,))
        self._position = np.ctypeslib.as_array(self.native.pos, (capacity,))
        self._wants_logits = np.ctypeslib.as_array(self.native.logits, (capacity,))
        np.ctypeslib.as_array(self.native.n_seq_id, (capacity,))[:] = 1
        # `seq_id` is an array of pointers, one malloc each. Point them into one array instead, so
        # that a chunk is written by one assignment; the originals are restored before the free.
        self._sequence = np.zeros(capacity, np.int32)
        self._pointers = ctypes.cast(self.native.seq_id, ctypes.POINTER(ctypes.c_void_p))
        self._originals = [self._pointers[row] for row in range(capacity)]
        for row in range(capacity):
            self._pointers[row] = self._sequence.ctypes.data + 4 * row
        self.native.n_tokens = 0

    def close(self) -> None:
        for row, original in enumerate(self._originals):
            self._pointers[row] = original
        lib.llama_batch_free(self.native)

    def __len__(self) -> int:
        return int(self.native.n_tokens)

    @property
    def room(self) -> int:
        return self.capacity - len(self)

    def clear(self) -> None:
        self.native.n_tokens = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, logits: bool) -> int:
        """Append tokens at `position`, ...; returns the last one's row, with logits if asked for."""
        first, end = len(self), len(self) + len(tokens)
        assert first < end <= self.capacity
        self._token[first:end] = tokens
        self._position[first:end] = np.arange(position, position + len(tokens))
        self._sequence[first:end] = sequence
        self._wants_logits[first:end] = 0
        self._wants_logits[end - 1] = logits
        self.native.n_tokens = end
        return end - 1
