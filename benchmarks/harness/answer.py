"""One streamed answer, as a client sees it."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Times are seconds from when the request was sent."""

    first_token_s: float
    last_token_s: float
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, those that were not computed for this request."""
    tokens: int
    """Drawn."""
    text: str
    token_ids: tuple[int, ...] | None = None
    """Drawn; Mooring does not tell them."""

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens evaluated for this request."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens computed a second, everything up to the first token included."""
        return self.computed_tokens / self.first_token_s

    @property
    def generation_rate(self) -> float:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / (self.last_token_s - self.first_token_s)


class RequestFailed(Exception):
    """A server answered with an error; the message is what it said."""


@dataclass(frozen=True)
class Event:
    """A `data:` line and when it came."""

    at_s: float
    body: dict[str, Any]


def read_events(lines: Iterable[str], begun: float) -> list[Event]:
    """Server-sent events; they are timed as they come and parsed afterwards.

    Raises:
        RequestFailed: one of them is an error.
    """
    timed = [(time.perf_counter() - begun, line) for line in lines if line.startswith("data: {")]
    events = [Event(at_s, json.loads(line.removeprefix("data: "))) for at_s, line in timed]
    for event in events:
        if "error" in event.body:
            raise RequestFailed(event.body["error"])
    return events
