"""Bodies that would do harm before anybody looks at them: too large, too deep, or no Unicode."""

import json
import re

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mooring.core.errors import InvalidRequest

_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_MAX_DEPTH = 64


class BodyLimit:
    """ASGI middleware: at most `max_bytes` of body, whatever Content-Length claims."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_bytes:
                raise HTTPException(
                    400,
                    f"the body is larger than the {self._max_bytes} bytes that this server takes"
                    " (server.max_body_bytes)",
                )
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)


async def harmless_json(request: Request) -> None:
    """A dependency: refuses JSON that parses, but that nothing can be done with.

    Raises:
        InvalidRequest: half a surrogate pair (no text), or nesting that no schema needs.
    """
    body = await request.body()
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH and _depth(json.loads(body)) > _MAX_DEPTH:
        raise InvalidRequest(f"the body is nested more than {_MAX_DEPTH} levels deep")
    if _SURROGATE.search(body):
        try:
            json.dumps(json.loads(body), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                "the body contains half a surrogate pair, which is no text: was a string cut in two?"
            ) from error


def _depth(value: object) -> int:
    """How deep a parsed value is nested, without recursion."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict):
            todo += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            todo += [(inner, depth + 1) for inner in item]
    return deepest
