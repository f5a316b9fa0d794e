"""Many users at once."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from harness.answer import Answer
from harness.report import percentile


class Server(Protocol):
    """What `Mooring` and `Peer` have in common."""

    name: str

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, its children's included."""

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens evaluated so far."""

    @property
    def cells(self) -> int:
        """KV cells in use."""


@dataclass(frozen=True)
class Round:
    """What a number of answers took, all together."""

    answers: tuple[Answer, ...]
    wall_s: float
    cpu_s: float
    computed_tokens: int
    """Prompt tokens evaluated, by the server's own count."""
    cells: int
    """The most KV cells in use that were seen."""

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        firsts = [answer.first_token_s for answer in self.answers]
        return {
            "requests": len(self.answers),
            "prompt_tokens": sum(answer.prompt_tokens for answer in self.answers),
            "prompt_tokens_evaluated": self.computed_tokens,
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "ttft_p50_s": percentile(firsts, 50),
            "ttft_p95_s": percentile(firsts, 95),
            "tokens_per_s": sum(answer.tokens for answer in self.answers) / self.wall_s,
            "kv_cells": self.cells,
        }


def all_at_once(server: Server, asks: Sequence[Callable[[], Answer]]) -> Round:
    """Every ask in a thread of its own, started together."""
    cpu_s, computed = server.cpu_s, server.computed_tokens
    with ThreadPoolExecutor(len(asks)) as users, _CellsSeen(server) as seen:
        begun = time.perf_counter()
        answers = tuple(users.map(lambda ask: ask(), asks))
        wall_s = time.perf_counter() - begun
    return Round(answers, wall_s, server.cpu_s - cpu_s, server.computed_tokens - computed, seen.most)


class _CellsSeen:
    """Looks at the cells in use a few times a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most = 0

    def __enter__(self) -> "_CellsSeen":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        pause_s = 0.02
        while not self._stop.wait(pause_s):
            pause_s = min(2 * pause_s, 0.3)  # looking costs the server something
            self.most = max(self.most, self._server.cells)
        self.most = max(self.most, self._server.cells)
