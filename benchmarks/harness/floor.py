"""Raw llama-cpp-python, low-level API only: what the engine's own library takes, without a server."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as lib
from rich.progress import track

from mooring.engine.llamacpp import binding  # noqa: F401  -- it silences the library's log

_CHUNK = 512


class Raw:
    """One context, one answer at a time, greedy."""

    def __init__(self, model_path: Path, *, cells: int, threads: int, flash_attention: bool) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(model_path).encode(), params)
        context = lib.llama_context_default_params()
        context.n_ctx = cells
        context.n_batch = context.n_ubatch = _CHUNK
        context.n_seq_max = 2
        context.n_threads = context.n_threads_batch = threads
        context.flash_attn_type = 1 if flash_attention else 0
        context.kv_unified = True
        self._context = lib.llama_init_from_model(self._model, context)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(_CHUNK, 0, 1)
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    def close(self) -> None:
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def prefill(
        self, tokens: Sequence[int], sequence: int, *, start: int = 0, shown: bool = False
    ) -> int:
        """Evaluate tokens at positions [start, ...) of a sequence; returns the token drawn after."""
        chunks: Sequence[int] = range(0, len(tokens), _CHUNK)
        for at in track(chunks, "Prefilling the floor", transient=True, disable=not shown):
            chunk = tokens[at : at + _CHUNK]
            self._decode(chunk, start + at, sequence)
        return self._draw((len(tokens) - 1) % _CHUNK)

    def question(self, prefix_tokens: int, question: Sequence[int]) -> float:
        """Seconds from the question's tokens to the answer's first, the prefix being in sequence 0."""
        lib.llama_memory_seq_cp(self._memory, 0, 1, 0, prefix_tokens)
        begun = time.perf_counter()
        self.prefill(question, 1, start=prefix_tokens)
        seconds = time.perf_counter() - begun
        lib.llama_memory_seq_rm(self._memory, 1, -1, -1)
        return seconds

    def answer(self, prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        """Seconds until the first and until the last token of an answer; leaves nothing behind."""
        begun = time.perf_counter()
        drawn = self.prefill(prompt, 1)
        first_s = time.perf_counter() - begun
        for position in range(len(prompt), len(prompt) + tokens - 1):
            self._decode([drawn], position, 1)
            drawn = self._draw(0)
        last_s = time.perf_counter() - begun
        lib.llama_memory_seq_rm(self._memory, 1, -1, -1)
        return first_s, last_s

    def _draw(self, row: int) -> int:
        logits = lib.llama_get_logits_ith(self._context, row)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self._vocabulary,))))

    def _decode(self, tokens: Sequence[int], position: int, sequence: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row] = token
            batch.pos[row] = position + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = row == len(tokens) - 1
        status = lib.llama_decode(self._context, batch)
        assert status == 0, status
