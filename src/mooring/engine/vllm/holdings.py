"""What each worker is believed to hold, from what was sent there: a guess, for the router alone.

Prompts are known by chains of hashes, one for each `CHUNK_TOKENS`, seeded with the scope. What a worker
evicts is not seen, so that what has not been seen for long is forgotten.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from mooring.core.prefix import Tokens, pack

CHUNK_TOKENS = 128
_MOST_CHUNKS = 200_000  # 25 million tokens, about 40 MB


class Holdings:
    """Of all workers."""

    def __init__(self, most_chunks: int = _MOST_CHUNKS) -> None:
        self._most = most_chunks
        self._workers: OrderedDict[bytes, set[str]] = OrderedDict()
        """Who holds what ends with this chunk, the longest unseen first."""

    def record(self, worker: str, salt: str, prompt: Tokens) -> None:
        """The worker has just computed or loaded this prompt."""
        for chunk in chain(salt, prompt):
            self._workers.setdefault(chunk, set()).add(worker)
            self._workers.move_to_end(chunk)
        while len(self._workers) > self._most:
            self._workers.popitem(last=False)

    def held_tokens(self, salt: str, prompt: Tokens) -> dict[str, int]:
        """How many leading tokens of the prompt each worker holds; who holds none is not there."""
        held: dict[str, int] = {}
        for number, chunk in enumerate(chain(salt, prompt), start=1):
            holders = [
                worker
                for worker in self._workers.get(chunk, ())
                if held.get(worker, 0) == (number - 1) * CHUNK_TOKENS
            ]
            if not holders:
                break
            held.update(dict.fromkeys(holders, number * CHUNK_TOKENS))
        return held

    def forget(self, worker: str) -> None:
        """It holds nothing any more: it has restarted."""
        for chunk in [chunk for chunk, workers in self._workers.items() if worker in workers]:
            self._workers[chunk].discard(worker)
            if not self._workers[chunk]:
                del self._workers[chunk]


def chain(salt: str, prompt: Tokens) -> Iterator[bytes]:
    """The hashes of a prompt's whole chunks; each stands for everything up to its end."""
    link = salt.encode()
    for start in range(0, len(prompt) - CHUNK_TOKENS + 1, CHUNK_TOKENS):
        chunk = pack(prompt[start : start + CHUNK_TOKENS])
        link = hashlib.blake2b(link + chunk, digest_size=16).digest()
        yield link
