"""Clients that ask several servers again and again, and what came of it."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx


@dataclass
class Load:
    """Two clients for each server, from beginning to end of the `with`."""

    urls: Sequence[str]
    body: dict
    """A chat."""
    stop: threading.Event = field(default_factory=threading.Event)
    answered: dict[str, dict] = field(default_factory=dict)
    """Usage by id."""
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[httpx.Response] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._threads = [
            threading.Thread(target=self._ask, args=(url,)) for url in (*self.urls, *self.urls)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url: str) -> None:
        with httpx.Client(base_url=url, timeout=300) as http:
            while not self.stop.is_set():
                reply = http.post("/v1/chat/completions", json=self.body)
                self.statuses[reply.status_code] += 1
                if reply.status_code == 200:
                    self.answered[reply.json()["id"]] = reply.json()["usage"]
                else:
                    self.refusals.append(reply)
                    time.sleep(0.05)

    def until_answered(self, more: int) -> None:
        enough = len(self.answered) + more
        while len(self.answered) < enough:
            time.sleep(0.01)
