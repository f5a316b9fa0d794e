"""Runs inside vLLM's API server, as `--middleware`: tells a stream's cached tokens before its tokens.

vLLM reports them with the usage at a stream's end. Mooring's clients get them in the reply's headers and
are charged by them even when they break an answer off, so they are needed when the answer begins. For
requests with the header `x-mooring-announce`, the stream's first event is
`data: {"mooring": {"cached_tokens": n}}`. Imports nothing of vLLM, and nothing that vLLM does not have.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-mooring-announce"
_PATH = "/v1/completions"


class Announcement:
    """ASGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_asked_for(scope):
            await self._app(scope, receive, send)
            return
        _watch_engine(scope["app"].state.openai_serving_completion)
        first: list[int] = []
        _first_output.set(first)
        announces = False

        async def announce(message: Message) -> None:
            nonlocal announces
            if message["type"] == "http.response.start":
                announces = _is_stream(message)
            elif announces and first:
                announces = False
                event = json.dumps({"mooring": {"cached_tokens": first[0]}})
                message["body"] = f"data: {event}\n\n".encode() + message.get("body", b"")
            await send(message)

        await self._app(scope, receive, announce)


def _is_asked_for(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["path"] == _PATH
        and any(name == HEADER.encode() for name, _ in scope["headers"])
    )


def _is_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start["headers"]
    )


_first_output: ContextVar[list[int]] = ContextVar("first_output")
"""Where the current request's cached tokens go, once the engine has said them."""


class _WatchedEngine:
    """vLLM's engine client; looks at the first output of each generation that passes."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        outputs = self._engine.generate(*args, **kwargs)
        try:
            async for output in outputs:
                first = _first_output.get(None)
                if first == [] and not _has_failed(output):
                    first.append(output.num_cached_tokens or 0)
                yield output
        finally:
            await outputs.aclose()


def _has_failed(output: Any) -> bool:
    return any(choice.finish_reason == "error" for choice in output.outputs)


def _watch_engine(serving: Any) -> None:
    if not isinstance(serving.engine_client, _WatchedEngine):
        serving.engine_client = _WatchedEngine(serving.engine_client)
