"""The only module that imports llama_cpp: models, decoding contexts and samplers as objects.

Everything here is mechanism. It decides nothing, and it never trusts a size or an id it was handed.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from mooring.core.errors import ModelUnreadable

LIBRARY_VERSION: str = llama_cpp.__version__
MAX_SEQUENCES = 256
"""llama.cpp's own limit; a larger sequence id aborts the process."""

KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}
"""KV cache types by name, with ggml's numbers."""

_log = logging.getLogger("mooring.llamacpp")
_LOG_LEVELS = {3: logging.INFO, 4: logging.WARNING}
"""ggml's warnings and errors; the rest is noise. A failure that matters is raised by its caller."""


def _forward_log(level: int, text: bytes, _: object) -> None:
    if level in _LOG_LEVELS and (line := text.decode(errors="replace").strip()):
        _log.log(_LOG_LEVELS[level], line)


_log_callback = lib.llama_log_callback(_forward_log)  # the library keeps the pointer, so do we
lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
lib.llama_backend_init()

# The package types these two with `uint8*`; plain addresses let a memory map pass without a copy.
_get_state = lib._lib.llama_state_seq_get_data_ext
_set_state = lib._lib.llama_state_seq_set_data_ext
_get_state.restype = _set_state.restype = ctypes.c_size_t
_get_state.argtypes = _set_state.argtypes = [
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int32,
    ctypes.c_uint32,
]

# `strlen` has the abort callback's shape: it returns non-zero exactly when the first byte behind the
# pointer is set. A Python callback would take the GIL at every node of the graph.
_STRLEN = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)


class Model:
    """A loaded GGUF: weights, vocabulary and metadata. Tokenising is safe from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Load `path`, calling `on_progress` with the share loaded, 0.0 to 1.0.

        Raises:
            ModelUnreadable: no such file, or not a GGUF that this llama.cpp can load.
        """
        if not path.is_file():
            raise ModelUnreadable(f"no model file at {path}")
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if on_progress is not None:

            def report(share: float, _: object) -> bool:
                on_progress(share)
                return True

            self._progress_callback = lib.llama_progress_callback(report)
            params.progress_callback = self._progress_callback
        self.path = path
        handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise ModelUnreadable(f"llama.cpp cannot load {path}: is it a complete GGUF file?")
        self.handle = handle
        self.vocab = lib.llama_model_get_vocab(handle)
        self.vocab_size: int = lib.llama_vocab_n_tokens(self.vocab)

    def close(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The GGUF's key-value pairs, as llama.cpp prints them."""
        pairs = {}
        for index in range(lib.llama_model_meta_count(self.handle)):
            key = _read_text(lib.llama_model_meta_key_by_index, self.handle, index)
            pairs[key] = _read_text(lib.llama_model_meta_val_str_by_index, self.handle, index)
        return pairs

    @property
    def trained_context_tokens(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def layers(self) -> int:
        return int(lib.llama_model_n_layer(self.handle))

    @property
    def heads(self) -> int:
        return int(lib.llama_model_n_head(self.handle))

    @property
    def kv_width(self) -> int:
        """Values of one K (or V) row of one layer: KV heads x head size."""
        head_size = int(lib.llama_model_n_embd(self.handle)) // self.heads
        return int(lib.llama_model_n_head_kv(self.handle)) * head_size

    def unsupported_family(self) -> str | None:
        """Why sequences of this model cannot be cut at any token, or None when they can."""
        if lib.llama_model_has_encoder(self.handle):
            return "it has an encoder"
        if lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle):
            return "it keeps recurrent state"
        if lib.llama_model_is_diffusion(self.handle):
            return "it is a diffusion model"
        if lib.llama_model_n_swa(self.handle) > 0:
            return "it uses sliding-window attention"
        return None

    def special_text(self, which: str) -> str:
        """The text of the `bos` or `eos` token; empty when the vocabulary has none."""
        read = {"bos": lib.llama_vocab_bos, "eos": lib.llama_vocab_eos}[which]
        token = read(self.vocab)
        if token < 0:
            return ""
        return str(lib.llama_vocab_get_text(self.vocab, token).decode(errors="replace"))

    @property
    def adds_bos(self) -> bool:
        return bool(lib.llama_vocab_get_add_bos(self.vocab))

    def tokenize(self, text: str, *, add_bos: bool) -> tuple[int, ...]:
        """Token ids of `text`, special tokens recognised. Releases the GIL while it works."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_bos, True)
        assert count >= 0, "a token is at least one byte"
        return tuple(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = lib.llama_token_to_piece(self.vocab, token, buffer, room, 0, False)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    def ends_generation(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))


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
        self._handle = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise ModelUnreadable(
                f"llama.cpp cannot make a context of {shape.cells} cells with {shape.kv_type} KV and"
                f" flash attention {'on' if shape.flash_attention else 'off'}: quantised KV needs it on;"
                " otherwise lower engine.cells"
            )
        self._memory = lib.llama_get_memory(self._handle)
        self._abort = ctypes.create_string_buffer(2)
        lib.llama_set_abort_callback(self._handle, _STRLEN, ctypes.addressof(self._abort))
        self.batch = Batch(shape.batch_tokens)

    def close(self) -> None:
        if self._handle:
            self.batch.close()
            lib.llama_free(self._handle)
            self._handle = None

    def decode(self) -> int:
        """Evaluate the batch. 0 done, 1 no room (nothing changed), 2 aborted, below 0 an error."""
        return int(lib.llama_decode(self._handle, self.batch.native))

    def abort(self) -> None:
        """Make the running (or the next) `decode` return 2 soon. Safe from any thread."""
        self._abort[0] = b"\x01"

    def clear_abort(self) -> None:
        self._abort[0] = b"\x00"

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of a batch row, float32 of shape [vocab]; a copy."""
        pointer = lib.llama_get_logits_ith(self._handle, row)
        return np.ctypeslib.as_array(pointer, (self.model.vocab_size,)).copy()

    def copy_sequence(self, source: int, target: int, end: int) -> None:
        """Let `target` share the cells of `source` at positions [0, end). No bytes are copied."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, end)

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
        size = lib.llama_state_seq_get_size_ext(self._handle, sequence, 0)
        data = np.empty(size, np.uint8)
        written = _get_state(self._handle, data.ctypes.data, size, sequence, 0)
        assert written == size, (written, size)
        return data

    def import_sequence(self, sequence: int, data: NDArray[np.uint8]) -> bool:
        """Fill an empty sequence from exported bytes; False when llama.cpp refuses them.

        The bytes must be verified: altered ones can be accepted silently. After a refusal the
        sequence is empty.
        """
        assert self.last_position(sequence) == -1, "import only into an empty sequence"
        read = _set_state(self._handle, data.ctypes.data, data.size, sequence, 0)
        if read == data.size:
            return True
        self.cut_sequence(sequence, 0)
        return False


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


class SamplerChain:
    """A chain of llama.cpp samplers, applied to one batch row at a time."""

    def __init__(self) -> None:
        self._handle = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())

    def close(self) -> None:
        if self._handle:
            lib.llama_sampler_free(self._handle)
            self._handle = None

    def penalties(self, vocab_size: int, last: int, frequency: float, presence: float) -> None:
        self._add(lib.llama_sampler_init_penalties(vocab_size, last, 1.0, frequency, presence))

    def top_p(self, p: float) -> None:
        self._add(lib.llama_sampler_init_top_p(p, 1))

    def temperature(self, t: float) -> None:
        self._add(lib.llama_sampler_init_temp(t))

    def draw(self, seed: int) -> None:
        self._add(lib.llama_sampler_init_dist(seed))

    def greedy(self) -> None:
        self._add(lib.llama_sampler_init_greedy())

    def sample(self, context: DecodeContext, row: int) -> int:
        """The next token from the logits of `row`; the chain remembers it for its penalties."""
        return int(lib.llama_sampler_sample(self._handle, context._handle, row))

    def _add(self, sampler: object) -> None:
        lib.llama_sampler_chain_add(self._handle, sampler)


def _read_text(read: Callable[..., int], *arguments: object) -> str:
    """Call a `snprintf`-like reader, growing the buffer until the whole text fits."""
    room = 256
    while True:
        buffer = ctypes.create_string_buffer(room)
        size = read(*arguments, buffer, room)
        if size < room:
            return buffer.raw[: max(size, 0)].decode(errors="replace")
        room = size + 1
