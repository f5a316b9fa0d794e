"""Who is asking: decided before a byte of the body is read."""

import hmac
import re
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mooring.api.errors import reply_to
from mooring.core.address import is_loopback
from mooring.core.errors import MooringError, NotAuthenticated, PermissionDenied
from mooring.core.tenant import DEFAULT_TENANT
from mooring.service.tenants import Tenancy

_OPEN_PATHS = {"/health"}  # load balancers have no key
_OPERATORS_PATHS = ("/admin/", "/metrics")
"""What shows or changes other tenants' things."""
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")  # name, [IPv6] or IPv4; port
_SCOPE_KEY = "mooring.tenant"


class Auth:
    """ASGI middleware: the bearer key to a tenant, for every path but /health."""

    def __init__(self, app: ASGIApp, tenancy: Tenancy, admin_key: str | None) -> None:
        """Without any key everybody on this machine is let in; `app` sees to "on this machine"."""
        self._app = app
        self._tenancy = tenancy
        self._admin_key = admin_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            try:
                scope[_SCOPE_KEY] = await self._tenant(scope["path"], Headers(scope=scope))
            except MooringError as error:
                await reply_to(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _tenant(self, path: str, headers: Headers) -> str:
        """Raises NotAuthenticated, AuthenticationFailed, PermissionDenied."""
        key = _bearer_key(headers)
        if self._is_admin(key):
            if path.startswith("/v1/"):
                raise PermissionDenied("the admin key speaks for no tenant: use a tenant's key")
            return DEFAULT_TENANT
        if await self._tenancy.is_open():
            _refuse_foreign_host(headers)
            tenant = DEFAULT_TENANT
        else:
            tenant = await self._tenancy.authenticate(key)
        if path.startswith("/admin/"):
            raise PermissionDenied(_NO_ADMIN if self._admin_key is None else _NOT_ADMIN)
        if path.startswith(_OPERATORS_PATHS) and tenant != DEFAULT_TENANT:
            raise PermissionDenied(_NOT_ADMIN)
        return tenant

    def _is_admin(self, key: str) -> bool:
        known = self._admin_key
        return known is not None and hmac.compare_digest(key.encode(), known.encode())


_NO_ADMIN = "this server has no admin key: start it with MOORING_ADMIN_KEY to use /admin"
_NOT_ADMIN = "only the admin key may do this"


def _bearer_key(headers: Headers) -> str:
    """The key of a request, "" when it sends none."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def _refuse_foreign_host(headers: Headers) -> None:
    """A web page can make its visitor's browser call a name that resolves to 127.0.0.1."""
    parsed = _HOST.fullmatch(headers.get("Host", ""))
    host = parsed[1] if parsed else headers.get("Host", "")
    if parsed is None or not is_loopback(host):
        raise PermissionDenied(
            f"this server has no key and answers to localhost only, not to {host!r}:"
            " set MOORING_API_KEY, or make keys, to serve it under another name"
        )


async def _tenant_of(request: Request) -> str:
    tenant = request.scope.get(_SCOPE_KEY)
    if not isinstance(tenant, str):  # never, behind the middleware
        raise NotAuthenticated("send a key as `Authorization: Bearer <key>`")
    return tenant


Tenant = Annotated[str, Depends(_tenant_of)]
"""The tenant a request speaks for."""
