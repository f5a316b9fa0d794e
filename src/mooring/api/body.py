"""Bodies that would do harm before anybody looks at them: too large, too many parts, no text."""

import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_DEPTH = 64
_MAX_DIGITS = 1000  # Python itself refuses to read or write 4,300
_MAX_PARTS = 100_000  # parsing more would hold the event loop for long
# Possessive, and closed or not: linear on any input.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class BodyLimit:
    """ASGI middleware: at most `max_bytes` of body, whatever Content-Length claims."""

    def __init__(self, app: ASGIApp, max_bytes: int, uploads: Mapping[str, int] | None = None) -> None:
        """`uploads` are paths with a limit of their own."""
        self._app = app
        self._max_bytes = max_bytes
        self._uploads = uploads or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, limit = 0, self._uploads.get(scope.get("path", ""), self._max_bytes)

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                setting = "server.max_body_bytes" if limit == self._max_bytes else "files.max_file_bytes"
                raise _bad(
                    f"the body is larger than the {limit} bytes that this server takes ({setting})"
                )
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)


class StrictRoute(APIRoute):
    """A route whose JSON is UTF-8, no deeper than any schema needs, and can be written out again."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            self._strict_json = parse_strictly(await self.body())
        return self._strict_json


def parse_strictly(body: bytes) -> Any:
    """JSON that nothing behind this line has to be afraid of.

    Raises:
        HTTPException: a 400 that says what is wrong.
        json.JSONDecodeError: it is no JSON.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    _check_structure(text)
    value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_writable)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _bad(
                "the body contains half a surrogate pair, which is no text: was a string cut in two?"
            ) from error
    return value


def _check_structure(text: str) -> None:
    """Count parts and depth without building anything."""
    skeleton = _STRING.sub("", text)
    if sum(map(skeleton.count, "{[,")) > _MAX_PARTS:
        raise _bad(f"the body has more than {_MAX_PARTS} objects, lists and elements")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", skeleton):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_DEPTH:
            raise _bad(f"the body is nested more than {_MAX_DEPTH} levels deep")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _bad(f"the number {digits[:20]} is too large")
    return value


def _writable(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _bad(f"a number of {len(digits)} digits is too large")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise _bad(f"the body contains {name}, which is not JSON")


def _bad(message: str) -> HTTPException:
    return HTTPException(400, message)
