"""Who is asking: the bearer key to a tenant."""

import hmac
from collections.abc import Callable

from fastapi import Request

from mooring.core.errors import AuthenticationFailed

TENANT = "default"
"""The one tenant there is until tenants are built."""


def tenant_of(api_key: str | None) -> Callable[[Request], str]:
    """A dependency that admits requests with this key; None admits all (loopback only)."""

    def admit(request: Request) -> str:
        if api_key is None:
            return TENANT
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.encode(), api_key.encode()):
            raise AuthenticationFailed("send the server's key as `Authorization: Bearer <key>`")
        return TENANT

    return admit
