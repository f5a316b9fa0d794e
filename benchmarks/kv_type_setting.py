"""One KV type, with or without flash attention, measured in a process of its own; prints JSON.

Started by `kv_types.py`. Raw llama-cpp-python, its low-level API only: what the engine adds is the same
for every setting.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from mooring.engine.llamacpp.binding.library import KV_TYPES, get_state, set_state

CHUNK = 512  # the largest batch
TIMED = 256  # tokens of the prefill that is timed
LENGTHS = (4_096, 16_384)
PREFIX, QUESTION, CROWD = 512, 32, 16
STEPS = 9
_CELL = np.dtype([("position", "<i4"), ("sequences", "<u4"), ("sequence", "<i4")])
_CELLS_AT = 16  # behind magic, sequence, streams and the number of cells
_SCRATCH = CROWD


@dataclass(frozen=True)
class Row:
    token: int
    position: int
    sequence: int
    wants_logits: bool


class Decoder:
    """A context whose sequence 0 can be filled with more tokens than anyone wants to compute."""

    def __init__(self, model_path: str, kv_type: str, flash_attention: bool) -> None:
        model = lib.llama_model_load_from_file(model_path.encode(), lib.llama_model_default_params())
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        before = anonymous_bytes()
        params = lib.llama_context_default_params()
        params.n_ctx = LENGTHS[-1] + 2 * CHUNK
        params.n_batch = params.n_ubatch = CHUNK
        params.n_seq_max = CROWD + 1
        params.n_outputs_max = 2 * QUESTION
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        params.flash_attn_type = int(flash_attention)
        params.type_k = params.type_v = KV_TYPES[kv_type]
        params.kv_unified = True
        self._context = lib.llama_init_from_model(model, params)
        assert self._context, "llama.cpp refuses this setting"
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(CHUNK, 0, 1)
        self._bytes_before = before
        self._chunk: NDArray[np.uint8] | None = None

    @property
    def own_bytes(self) -> int:
        """What the context has taken: KV buffer and scratch."""
        return anonymous_bytes() - self._bytes_before

    def decode(self, rows: list[Row]) -> NDArray[np.float32]:
        """Logits of the rows that want them: [rows, vocabulary]."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, row in enumerate(rows):
            batch.token[index] = row.token
            batch.pos[index] = row.position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row.sequence
            batch.logits[index] = row.wants_logits
        assert lib.llama_decode(self._context, batch) == 0
        wanted = [index for index, row in enumerate(rows) if row.wants_logits]
        pointers = [lib.llama_get_logits_ith(self._context, index) for index in wanted]
        return np.array([np.ctypeslib.as_array(p, (self.vocabulary,)) for p in pointers])

    def evaluate(
        self, tokens: list[int], position: int, chunk: int = CHUNK, logits_from: int = 1 << 30
    ) -> NDArray[np.float32]:
        """Append tokens to sequence 0; logits of those at positions from `logits_from` on."""
        rows = [Row(t, p, 0, p >= logits_from) for p, t in enumerate(tokens, start=position)]
        parts = [self.decode(rows[at : at + chunk]) for at in range(0, len(rows), chunk)]
        return np.concatenate([part for part in parts if len(part)] or [np.empty((0, self.vocabulary))])

    def fork(self, target: int) -> None:
        lib.llama_memory_seq_cp(self._memory, 0, target, -1, -1)

    def cut(self, sequence: int, start: int) -> None:
        assert lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, False)

    def fill(self, tokens: list[int], length: int) -> None:
        """Sequence 0 gets `length` tokens, of which a chunk is computed and the rest repeat its cells.

        How long attention takes does not depend on what the cells hold.
        """
        self.clear()
        state = self._exported_chunk(tokens) if self._chunk is None else self._chunk
        self._chunk = state
        self.clear()
        cells = state[_CELLS_AT : _CELLS_AT + CHUNK * _CELL.itemsize].view(_CELL)
        for start in range(0, length, CHUNK):
            cells["position"] = np.arange(start, start + CHUNK)
            read = set_state(self._context, state.ctypes.data, state.size, _SCRATCH, 0)
            assert read == state.size
            lib.llama_memory_seq_cp(self._memory, _SCRATCH, 0, start, start + CHUNK)
            self.cut(_SCRATCH, 0)

    def _exported_chunk(self, tokens: list[int]) -> NDArray[np.uint8]:
        self.evaluate(tokens[:CHUNK], 0)
        size = lib.llama_state_seq_get_size_ext(self._context, 0, 0)
        state = np.empty(size, np.uint8)
        assert get_state(self._context, state.ctypes.data, size, 0, 0) == size
        cells = state[_CELLS_AT : _CELLS_AT + CHUNK * _CELL.itemsize].view(_CELL)
        assert (cells["position"] == np.arange(CHUNK)).all(), "llama.cpp lays states out differently"
        return state


def anonymous_bytes() -> int:
    """Memory of this process that no file backs, so without the mapped weights."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("RssAnon is Linux's")


def speed(decoder: Decoder, tokens: list[int], length: int, repeats: int) -> dict:
    """Seconds of the last `TIMED` tokens before `length`, and of a step behind them."""
    prefills, steps = [], []
    for _ in range(repeats):
        decoder.fill(tokens, length)
        decoder.cut(0, length - TIMED)
        begun = time.perf_counter()
        decoder.evaluate(tokens[:TIMED], length - TIMED)
        prefills.append(time.perf_counter() - begun)
    for step in range(STEPS):
        begun = time.perf_counter()
        decoder.decode([Row(tokens[step], length + step, 0, True)])
        steps.append(time.perf_counter() - begun)
    return {"length": length, "prefill_s": prefills, "step_s": steps}


def shapes(decoder: Decoder, tokens: list[int]) -> dict[str, NDArray[np.float32]]:
    """Logits of one question behind one prefix, evaluated in batches of four shapes."""
    prefix, question = tokens[:PREFIX], tokens[PREFIX : PREFIX + QUESTION]
    decoder.clear()
    decoder.evaluate(prefix, 0)
    for sequence in range(1, CROWD):
        decoder.fork(sequence)
    logits = {"alone": decoder.evaluate(question, PREFIX, logits_from=PREFIX)}
    decoder.cut(0, PREFIX)
    steps = [decoder.decode([Row(t, PREFIX + n, 0, True)]) for n, t in enumerate(question)]
    logits["token by token"] = np.concatenate(steps)
    decoder.cut(0, PREFIX)
    crowd = [
        Row(token, PREFIX + n, sequence, sequence == 0)
        for sequence in range(CROWD)
        for n, token in enumerate(question if sequence == 0 else tokens[sequence:][:QUESTION])
    ]
    logits["among 15 others"] = decoder.decode(crowd)
    decoder.clear()
    whole = decoder.evaluate([*prefix, *question], 0, chunk=176, logits_from=PREFIX)
    return {**logits, "whole, in other chunks": whole}


def main() -> None:
    model_path, kv_type, flash, repeats, logits_path = sys.argv[1:]
    decoder = Decoder(model_path, kv_type, flash == "on")
    random = np.random.default_rng(0)
    tokens = [int(t) for t in random.integers(300, min(3_000, decoder.vocabulary), PREFIX + 64)]
    logits = shapes(decoder, tokens)
    alone = logits.pop("alone")
    moved = {
        name: {
            "largest": float(np.abs(other - alone).max()),
            "other_argmax": int((other.argmax(1) != alone.argmax(1)).sum()),
        }
        for name, other in logits.items()
    }
    np.save(logits_path, alone)
    speeds = [speed(decoder, tokens, length, int(repeats)) for length in LENGTHS]
    report = {"kv_type": kv_type, "flash_attention": flash == "on", "moved": moved}
    report |= {"speeds": speeds, "own_bytes": decoder.own_bytes, "spread": float(alone.std())}
    for row in speeds:  # the fastest: what else runs on the machine only ever slows down
        row["step_ms"] = 1000 * min(row["step_s"])
        row["prefill_tokens_per_s"] = TIMED / min(row["prefill_s"])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
