"""The loaded library itself: version, limits, log, and the calls that its package types too narrowly."""

import ctypes
import logging
from collections import deque

import llama_cpp
from llama_cpp import llama_cpp as lib

LIBRARY_VERSION: str = llama_cpp.__version__
MAX_SEQUENCES = 256
"""llama.cpp's own limit; a larger sequence id aborts the process."""

KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8}
"""KV cache types by name, with ggml's numbers."""

_log = logging.getLogger("mooring.llamacpp")
_LOUD = {3, 4}  # ggml's warnings and errors
last_words: deque[str] = deque(maxlen=3)
"""What llama.cpp said last. Its log is at DEBUG; a failure is raised by its caller, with these."""


def _forward_log(level: int, text: bytes, _: object) -> None:
    if level in _LOUD and (line := text.decode(errors="replace").strip()):
        last_words.append(line)
        _log.debug(line)


_log_callback = lib.llama_log_callback(_forward_log)  # the library keeps the pointer, so do we
lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
lib.llama_backend_init()

# The package types these two with `uint8*`; plain addresses let a memory map pass without a copy.
get_state = lib._lib.llama_state_seq_get_data_ext
set_state = lib._lib.llama_state_seq_set_data_ext
get_state.restype = set_state.restype = ctypes.c_size_t
get_state.argtypes = set_state.argtypes = [
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int32,
    ctypes.c_uint32,
]

# `strlen` has the abort callback's shape: it returns non-zero exactly when the first byte behind the
# pointer is set. A Python callback would take the GIL at every node of the graph.
NON_ZERO_BYTE = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
