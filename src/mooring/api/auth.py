"""Who is asking: decided before a byte of the body is read."""

import hmac
import re
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mooring.api.errors import error_object, status_of
from mooring.core.address import is_loopback
from mooring.core.errors import (
    AuthenticationFailed,
    MooringError,
    NotAuthenticated,
    PermissionDenied,
)

_TENANT = "default"
"""The one tenant there is until tenants are built."""
_OPEN_PATHS = {"/health"}  # load balancers have no key
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")  # name, [IPv6] or IPv4; port


class Auth:
    """ASGI middleware: the bearer key to a tenant, for every path but /health."""

    def __init__(self, app: ASGIApp, api_key: str | None) -> None:
        """Without a key everybody on this machine is let in; config sees to "on this machine"."""
        self._app = app
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            try:
                self._check(Headers(scope=scope))
            except MooringError as error:
                refusal = JSONResponse(error_object(error), status_of(error))
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        if self._api_key is None:
            # A web page can make its visitor's browser call a name that resolves to 127.0.0.1.
            parsed = _HOST.fullmatch(headers.get("Host", ""))
            host = parsed[1] if parsed else headers.get("Host", "")
            if parsed is None or not is_loopback(host):
                raise PermissionDenied(
                    f"this server has no key and answers to localhost only, not to {host!r}:"
                    " set MOORING_API_KEY to serve it under another name"
                )
            return
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise NotAuthenticated("send the server's key as `Authorization: Bearer <key>`")
        if not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise AuthenticationFailed("this server does not know that key")


async def _tenant(_: Request) -> str:
    return _TENANT


Tenant = Annotated[str, Depends(_tenant)]
"""The tenant a request speaks for."""
