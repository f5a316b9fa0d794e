"""A decoding context: the KV buffer, and what can be done with the sequences in it."""

import ctypes
from dataclasses import dataclass

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from mooring.core.errors import ModelUnreadable
from mooring.engine.llamacpp.binding.batch import Batch
from mooring.engine.llamacpp.binding.library import (
    KV_TYPES,
    MAX_SEQUENCES,
    NON_ZERO_BYTE,
    get_state,
    set_state,
)
from mooring.engine.llamacpp.binding.model import Model


@dataclass(frozen=True)
class ContextShape:
    """How a decoding context is laid out. Part of the fingerprint of everything it exports."""

    cells: int
    """Tokens that fit into the unified KV buffer, all sequences together."""
    sequences: int
    batch_tokens: int
    kv_type: str
    flash_attention: bool
    threads: int


class DecodeContext:
    """A llama.cpp context with one unified KV buffer. Not thread-safe, but for `abort`."""

    def __init__(self, model: Model, shape: ContextShape) -> None:
        assert 0 < shape.sequences <= MAX_SEQUENCES, shape.sequences
        params = lib.llama_context_default_params()
        params.n_ctx = shape.cells
        params.n_batch = params.n_ubatch = shape.batch_tokens
        params.n_seq_max = shape.sequences
        params.n_outputs_max = min(shape.sequences, shape.batch_tokens)
        params.n_threads = params.n_threads_batch = shape.threads
        params.flash_attn_type = 1 if shape.flash_attention else 0
        params.type_k = params.type_v = KV_TYPES[shape.kv_type]
        params.kv_unified = True
        self.model = model
        self.shape = shape
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ModelUnreadable(
                f"llama.cpp cannot make a context of {shape.cells} cells with {shape.kv_type} KV and"
                f" flash attention {'on' if shape.flash_attention else 'off'}: quantised KV needs it on;"
                " otherwise lower engine.cells"
            )
        self._memory = lib.llama_get_memory(self.handle)
        self._abort = ctypes.create_string_buffer(2)
        lib.llama_set_abort_callback(self.handle, NON_ZERO_BYTE, ctypes.addressof(self._abort))
        self.batch = Batch(shape.batch_tokens)

    def close(self) -> None:
        if self.handle:
            self.batch.close()
            lib.llama_free(self.handle)
            self.handle = None

    def decode(self) -> int:
        """Evaluate the batch. 0 done, 1 no room (nothing changed), 2 aborted, below 0 an error."""
        return int(lib.llama_decode(self.handle, self.batch.native))

    def abort(self) -> None:
        """Make the running (or the next) `decode` return 2 soon. Safe from any thread."""
        self._abort[0] = b"\x01"

    def clear_abort(self) -> None:
        self._abort[0] = b"\x00"

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of a batch row, float32 of shape [vocab].

        This is llama.cpp's own memory until the next `decode`: what is written into it is sampled from.
        """
        pointer = lib.llama_get_logits_ith(self.handle, row)
        return np.ctypeslib.as_array(pointer, (self.model.vocab_size,))

    def copy_sequence(self, source: int, target: int, start: int, end: int) -> None:
        """Let `target` share the cells of `source` at positions [start, end). No bytes are copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, start, end)

    def cut_sequence(self, sequence: int, start: int) -> None:
        """Forget positions [start, ...) of a sequence."""
        lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, False)

    def last_position(self, sequence: int) -> int:
        """The highest position a sequence holds; -1 when it is empty."""
        return int(lib.llama_memory_seq_pos_max(self._memory, sequence))

    def export_sequence(self, sequence: int) -> NDArray[np.uint8]:
        """The KV bytes of a sequence, in llama.cpp's own layout."""
        size = lib.llama_state_seq_get_size_ext(self.handle, sequence, 0)
        data = np.empty(size, np.uint8)
        written = get_state(self.handle, data.ctypes.data, size, sequence, 0)
        assert written == size, (written, size)
        return data

    def import_sequence(self, sequence: int, data: NDArray[np.uint8]) -> bool:
        """Fill an empty sequence from exported bytes; False when llama.cpp refuses them.

        The bytes must be verified: altered ones can be accepted silently. After a refusal the
        sequence is empty.
        """
        assert self.last_position(sequence) == -1, "import only into an empty sequence"
        read = set_state(self.handle, data.ctypes.data, data.size, sequence, 0)
        if read == data.size:
            return True
        self.cut_sequence(sequence, 0)
        return False
