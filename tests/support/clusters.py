"""A running server over the workers of the tests, and what its clients and its operator see."""

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from mooring.testing import ServerProcess

BLOCK = 32
ADMIN = {"Authorization": "Bearer admin-key-of-the-test"}
CONFIG = """
[server]
admin_key = "admin-key-of-the-test"
[vllm]
health_interval_s = 0.3
"""
# A request must find a dead worker before its health check does.
SELDOM_CHECKED = CONFIG.replace("0.3", "3600")


class Server:
    """A running server, and what an operator sees of it."""

    def __init__(self, process: ServerProcess, http: httpx.Client) -> None:
        self.process, self.http = process, http

    def workers(self) -> dict[str, dict]:
        listed = self.http.get("/admin/v1/workers", headers=ADMIN).json()["data"]
        return {worker["url"]: worker for worker in listed}

    def drain(self, url: str, drained: bool = True) -> None:
        body = {"url": url, "drained": drained}
        assert self.http.post("/admin/v1/workers/drain", json=body, headers=ADMIN).status_code == 200

    def only(self, url: str | None) -> None:
        """Leave one worker to answer; None: all of them."""
        for each in self.workers():
            self.drain(each, url not in (None, each))

    def metric(self, name: str, **labels: str) -> float:
        # /metrics shows all tenants' things, so it takes the admin's key, too.
        lines = self.http.get("/metrics", headers=ADMIN).text.splitlines()
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
        wanted = name + ("{" + inside + "} " if labels else " ")
        return next((float(line[len(wanted) :]) for line in lines if line.startswith(wanted)), 0.0)

    def evaluated(self) -> float:
        return self.metric("mooring_prompt_tokens_evaluated_total", purpose="request")

    def create(self, words: int = 150) -> dict:
        """A cache of a text that nobody else has."""
        return self.when_ready(self.begin(rules(words)))

    def begin(self, text: str) -> dict:
        """A cache that is being filled."""
        reply = self.try_to_begin(text)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def try_to_begin(self, text: str) -> httpx.Response:
        body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": text}], "ttl": 3600}
        return self.http.post("/v1/caching", json=body)

    def when_ready(self, cache: dict) -> dict:
        until(lambda: self.get(cache)["status"] != "pending")
        cache = self.get(cache)
        assert cache["status"] == "ready", cache
        return cache

    def get(self, cache: dict) -> dict:
        reply = self.http.get(f"/v1/caching/{cache['id']}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def ask(self, cache: dict, question: str = "Is the quay clear?", **more: object) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=chat(cache, question, **more))


def rules(words: int = 150) -> str:
    """A text that nobody else has."""
    return f"Harbour rules, edition {secrets.token_hex(8)}. " + "Keep the quay clear. " * words


def chat(cache: dict, question: str, **more: object) -> dict:
    messages = [
        {"role": "cache", "content": f"cache_id={cache['id']}"},
        {"role": "user", "content": question},
    ]
    body = {"model": "moonshot-v1", "messages": messages, "max_tokens": 4, "temperature": 0}
    return body | more


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def held(cache: dict) -> int:
    """The tokens of a cache's whole blocks: what is never computed again."""
    return cache["tokens"] // BLOCK * BLOCK


def cached(reply: httpx.Response) -> int:
    assert reply.status_code == 200, reply.text
    return reply.json()["usage"]["cached_tokens"]


def begun(streams: ExitStack, server: Server, cache: dict) -> Iterator[dict]:
    """The chunks of a long answer, of which the first words have come."""
    more = {"n": 4, "max_tokens": 1400, "temperature": 1, "stream_options": {"include_usage": True}}
    body = chat(cache, "Tell all.", stream=True, **more)
    stream = streams.enter_context(server.http.stream("POST", "/v1/chat/completions", json=body))
    said = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
    next(line for line in said if '"content":""' not in line)
    return (json.loads(line) for line in said if line != "[DONE]")


def ended(chunks: Iterator[dict]) -> tuple[str, dict]:
    """The answer's id and usage."""
    last = list(chunks)[-1]
    return last["id"], last["usage"]


def report(worker: str) -> dict:
    """What a worker's connector says of what it holds."""
    body = {
        "model": "tiny",
        "prompt": [5],
        "max_tokens": 1,
        "kv_transfer_params": {"mooring": {"stat": True}},
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{worker}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["kv_transfer_params"]["mooring"]


def pinned(worker: str) -> set[str]:
    """The prefixes that a worker holds on its device."""
    return set(report(worker)["pinned"])


def vllm_metric(worker: str, name: str) -> float:
    with urllib.request.urlopen(f"{worker}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


@contextmanager
def running(cluster, data_dir: Path, config: str = CONFIG) -> Iterator[Server]:
    with (
        ServerProcess(data_dir, cluster.served, config) as process,
        httpx.Client(base_url=process.url, timeout=300) as http,
    ):
        yield Server(process, http)
