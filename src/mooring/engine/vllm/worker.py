"""One vLLM worker over HTTP: requests, replies and what its errors mean. Decides nothing."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from mooring.core.errors import EngineFailed, InvalidRequest, Overloaded
from mooring.core.prefix import Tokens
from mooring.engine.vllm.announcement import HEADER

_COMPLETIONS = "/v1/completions"
_CONNECT_S = 5.0
_QUESTION_S = 30.0
"""For what every worker answers at once."""
_HEALTH_S = 10.0
"""Who takes longer to say that it is well is not."""
_MOST_CONNECTIONS = 4096
_IDLE_S = 2.0
"""vLLM closes a connection that is idle for 5 s; one must not be used while that happens."""
# A machine that has gone without a word is noticed after half a minute, also in the middle of a stream.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)  # macOS has another name for the first
    ),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]


class WorkerLost(Exception):
    """The worker could not be reached, or went away before its reply was complete."""


class GenerationFailed(Exception):
    """The worker is well, but this request failed inside it."""


@dataclass(frozen=True)
class Identity:
    """What has to be equal on all workers."""

    model: str
    """The name that it serves the model under."""
    context_tokens: int
    fingerprint: str
    block_tokens: int


class Worker:
    """Talks to one."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {HEADER: "1"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx2.Limits(
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=64,
            keepalive_expiry=_IDLE_S,
        )
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            trust_env=False,  # a proxy for the world outside is none for the cluster
            headers=headers,
            # Prompts wait and are computed for as long as it takes; a lost peer shows in the connection.
            timeout=httpx2.Timeout(None, connect=_CONNECT_S),
            transport=httpx2.AsyncHTTPTransport(limits=limits, socket_options=_KEEPALIVE),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def is_well(self) -> bool:
        """It answers, and says of its engine that it lives."""
        try:
            reply = await self._client.get("/health", timeout=_HEALTH_S)
        except httpx2.HTTPError:
            return False
        return reply.status_code == httpx2.codes.OK

    async def models(self) -> tuple[str, int]:
        """The model's name and context length. Raises as `ask` does."""
        reply = await self._question("GET", "/v1/models")
        first = reply["data"][0]
        return first["id"], first["max_model_len"]

    async def detokenize(self, model: str, tokens: Tokens) -> str:
        """The text that the worker's own tokenizer makes of tokens. Raises as `ask` does."""
        body = {"model": model, "tokens": tokens}
        return str((await self._question("POST", "/detokenize", body))["prompt"])

    async def announces(self, body: Mapping[str, Any]) -> bool:
        """Its streams begin with the cached tokens. Raises as `ask` does."""
        async with asyncio.timeout(_QUESTION_S), aclosing(self.stream(body)) as chunks:
            return (await anext(chunks)).keys() == {"mooring"}

    async def report(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the connector says to a message that takes no time. Raises as `ask` does."""
        return report_of(await self._question("POST", _COMPLETIONS, body))

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A whole completion, however long it takes.

        Raises:
            WorkerLost, GenerationFailed: see there.
            InvalidRequest, Overloaded, EngineFailed: it refuses.
        """
        return await self._question("POST", _COMPLETIONS, body, timeout_s=None)

    async def _question(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = _QUESTION_S,
    ) -> dict[str, Any]:
        timeout = httpx2.Timeout(timeout_s, connect=_CONNECT_S)
        try:
            reply = await self._client.request(method, path, json=body, timeout=timeout)
        except httpx2.HTTPError as error:
            raise self._lost(error) from error
        if reply.status_code != httpx2.codes.OK:
            raise self._refusal(reply.status_code, reply.text)
        return dict(reply.json())

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """A completion's chunks as they come. Closing it cancels the work. Raises as `ask` does."""
        async with self._streaming(body) as source:
            async for event in source:
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise self._failure(chunk["error"])
                yield chunk
        raise WorkerLost(f"{self.url} ended a stream in the middle")

    @asynccontextmanager
    async def _streaming(self, body: Mapping[str, Any]) -> AsyncGenerator[httpx2.EventSource]:
        try:
            async with self._client.stream("POST", _COMPLETIONS, json=body) as reply:
                if reply.status_code != httpx2.codes.OK:
                    await reply.aread()
                    raise self._refusal(reply.status_code, reply.text)
                yield httpx2.EventSource(reply)
        except httpx2.HTTPError as error:
            raise self._lost(error) from error

    def _lost(self, error: httpx2.HTTPError) -> WorkerLost:
        said = str(error) or type(error).__name__
        return WorkerLost(f"{self.url} cannot be reached: {said}")

    def _refusal(self, status: int, text: str) -> Exception:
        """vLLM's error reply, as what it means for the request."""
        try:
            error = json.loads(text)["error"]
            said = error["message"] if isinstance(error, dict) else str(error)
        except (ValueError, KeyError, TypeError):
            said = text[:200]
        return self._meaning(status, str(said))

    def _failure(self, error: Any) -> Exception:
        """An error inside a stream; vLLM looks at some fields only when it has begun."""
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            return GenerationFailed(str(error))
        return self._meaning(error["code"], str(error.get("message", error)))

    def _meaning(self, status: int, said: str) -> Exception:
        match status:
            case 400 | 422:
                return InvalidRequest(said)
            case 429:
                return Overloaded(f"{self.url} is busy: {said}")
            case 500:
                return GenerationFailed(said)
            case 502 | 503 | 504:  # of a proxy in front of it, or of an engine that is going
                return WorkerLost(f"{self.url}: {said}")
            case _:
                return EngineFailed(f"{self.url} refuses with status {status}: {said}")


def report_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The connector's report in a whole completion. Raises EngineFailed: there is none."""
    report = (reply.get("kv_transfer_params") or {}).get("mooring")
    if not isinstance(report, dict):
        raise EngineFailed(
            "the worker runs without Mooring's connector: start it as `mooring vllm-args` says"
        )
    return report
