"""Mooring under test: a real `mooring serve` in a process of its own, and a client of it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from harness.answer import Answer, read_events
from harness.processes import cpu_seconds
from harness.prompts import Message
from mooring.testing import ServerProcess

MODEL = "moonshot-v1"


def settings(**parts: Mapping[str, Any]) -> str:
    """TOML from `part={key: value}`; None values are left out."""
    lines = []
    for part, values in parts.items():
        lines.append(f"[{part}]")
        for key, value in values.items():
            if value is not None:
                lines.append(f"{key} = {str(value).lower() if isinstance(value, bool) else value}")
    return "\n".join(lines) + "\n"


class Mooring:
    """A running server; a context manager that stops it."""

    name = "Mooring"

    def __init__(self, data_dir: Path, model: Path, config: str = "") -> None:
        self.process = ServerProcess(data_dir, model, config)
        self.http = httpx.Client(
            base_url=self.process.url, timeout=1800, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def __enter__(self) -> "Mooring":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.stop()

    @property
    def pid(self) -> int:
        return self.process.process.pid

    @property
    def cpu_s(self) -> float:
        return cpu_seconds(self.pid)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens evaluated so far, for requests and to keep prefixes, as /metrics says."""
        name = "mooring_prompt_tokens_evaluated_total"
        return int(sum(self.process.metric(name, purpose=p) for p in ("request", "prefix")))

    @property
    def cells(self) -> int:
        return int(self.process.metric("mooring_kv_cells_used"))

    def cached_from(self) -> dict[str, int]:
        """Prompt tokens reused so far, by the tier they came from."""
        name = "mooring_prompt_tokens_cached_total"
        return {
            tier: int(self.process.metric(name, source=tier))
            for tier in ("resident", "ram", "disk", "computed")
        }

    def ask(self, *messages: Message, tokens: int) -> Answer:
        """Stream an answer of at most `tokens` tokens."""
        body = {
            "model": MODEL,
            "messages": messages,
            "temperature": 0,
            "max_tokens": tokens,
            "stream": True,
        }
        begun = time.perf_counter()
        with self.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            if reply.is_error:
                reply.read()
            events = read_events(reply.iter_lines() if reply.is_success else [_line(reply)], begun)
        usage: dict[str, Any] = {}
        text, times = "", []
        for event in events:
            (choice,) = event.body["choices"]
            usage = choice.get("usage") or usage
            content = choice["delta"].get("content")
            if content or choice["finish_reason"]:
                times.append(event.at_s)
            text += content or ""
        return Answer(
            first_token_s=times[0],
            last_token_s=times[-1],
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=usage["cached_tokens"],
            tokens=usage["completion_tokens"],
            text=text,
        )

    def keep(self, *messages: Message, ttl_s: int = 86_400) -> Message:
        """Make an explicit context and wait until it is durable; returns the message that names it."""
        body = {"model": MODEL, "messages": messages, "ttl": ttl_s}
        cache = self.http.post("/v1/caching", json=body).raise_for_status().json()
        pause_s = 0.01
        while cache["status"] == "pending":
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.2)  # looking costs the server something
            cache = self.http.get(f"/v1/caching/{cache['id']}").raise_for_status().json()
        assert cache["status"] == "ready", cache
        return {"role": "cache", "content": f"cache_id={cache['id']}"}


def _line(reply: httpx.Response) -> str:
    """An error reply, as the one event of its stream."""
    if reply.text.startswith("{"):
        return f"data: {reply.text}"
    return f'data: {{"error": "HTTP {reply.status_code}"}}'
