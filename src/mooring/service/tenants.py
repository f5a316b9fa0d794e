"""Tenants, their keys, and whom a key speaks for."""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mooring.core.errors import (
    AuthenticationFailed,
    InvalidRequest,
    KeyNotFound,
    NotAuthenticated,
    TenantNotFound,
)
from mooring.core.limits import LIMIT_NAMES
from mooring.core.tenant import DEFAULT_TENANT, Key, Tenant, hash_of, new_secret
from mooring.registry.tenants import Tenants

_log = logging.getLogger("mooring.tenants")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TRUSTED_S = 5.0
_MAX_TRUSTED = 10_000
_HINT_LENGTH = 8
_MAX_NAME = 256


@dataclass(frozen=True)
class NewKey:
    """A key that has just been made, with the secret that is shown this once."""

    key: Key
    secret: str


class Tenancy:
    """All tenants and keys.

    A key that was found good is trusted for a few seconds without a look into the registry: a revocation
    through another process takes effect that much later, one through this object at once.
    """

    def __init__(
        self,
        tenants: Tenants,
        static_key: str | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`static_key` is the configured one, of the default tenant."""
        self._tenants = tenants
        self._static_key = static_key
        self._clock = clock
        self._timer = timer
        self._trusted: OrderedDict[str, tuple[Key, float]] = OrderedDict()
        """Keys found good by the hash of their secret, and until when that counts."""
        self._limits: dict[str, tuple[Mapping[str, int], float]] = {}
        """Tenants' own limits, and until when they count."""
        self._any_key = False
        self._look_again = float("-inf")

    # Who is asking

    async def is_open(self) -> bool:
        """Whether there is no key at all, so that none can be asked for."""
        if self._static_key is not None or self._any_key:
            return False
        if self._timer() >= self._look_again:
            self._any_key = await asyncio.to_thread(self._tenants.any_key)
            self._look_again = self._timer() + _TRUSTED_S
        return not self._any_key

    async def authenticate(self, secret: str) -> str:
        """The tenant that a key speaks for.

        Raises:
            NotAuthenticated: there is no key in the request.
            AuthenticationFailed: nobody made this key, or it is revoked or past its end.
        """
        if not secret:
            raise NotAuthenticated("send a key as `Authorization: Bearer <key>`")
        if self._static_key is not None and hmac.compare_digest(
            secret.encode(), self._static_key.encode()
        ):
            return DEFAULT_TENANT
        key = await self._key(hash_of(secret))
        if key is None or not key.is_valid(self._clock()):
            raise AuthenticationFailed("this server does not know that key, or not any more")
        return key.tenant

    async def _key(self, hash_: str) -> Key | None:
        """Found by a hash that a guesser cannot choose, so a comparison's time tells nothing."""
        trusted = self._trusted.get(hash_)
        if trusted is not None and self._timer() < trusted[1]:
            return trusted[0]
        self._trusted.pop(hash_, None)
        key = await asyncio.to_thread(self._tenants.find_key, hash_)
        if key is not None:
            self._trusted[hash_] = key, self._timer() + _TRUSTED_S
            if len(self._trusted) > _MAX_TRUSTED:
                self._trusted.popitem(last=False)
        return key

    # Tenants

    async def create(self, tenant_id: str, name: str = "") -> Tenant:
        """Raises InvalidRequest: the id is malformed or taken."""
        if not _SLUG.fullmatch(tenant_id):
            raise InvalidRequest(
                f"id: {tenant_id!r} must be 1 to 63 of a-z, 0-9, _ and -, a letter or digit first",
                param="id",
            )
        tenant = Tenant(tenant_id, _checked_name(name), int(self._clock()))
        if not await asyncio.to_thread(self._tenants.insert, tenant):
            raise InvalidRequest(f"id: there is a tenant {tenant_id!r} already", param="id")
        _log.info("tenant created id=%s", tenant_id)
        return tenant

    async def get(self, tenant_id: str) -> Tenant:
        """Raises TenantNotFound."""
        tenant = await asyncio.to_thread(self._tenants.get, tenant_id)
        if tenant is None:
            raise TenantNotFound(tenant_id)
        return tenant

    async def limits_of(self, tenant_id: str) -> Mapping[str, int]:
        """A tenant's own limits; what another process changes counts a few seconds later."""
        known = self._limits.get(tenant_id)
        if known is not None and self._timer() < known[1]:
            return known[0]
        tenant = await asyncio.to_thread(self._tenants.get, tenant_id)
        limits = {} if tenant is None else tenant.limits
        self._limits[tenant_id] = limits, self._timer() + _TRUSTED_S
        return limits

    async def list(self) -> Sequence[Tenant]:
        return await asyncio.to_thread(self._tenants.list)

    async def update(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        disabled: bool | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Tenant:
        """Change what is given; `limits` change one by one. Raises TenantNotFound, InvalidRequest."""
        checked = None if name is None else _checked_name(name)
        if limits is not None:
            limits = dict((await self.get(tenant_id)).limits) | _checked_limits(limits)
        change = partial(self._tenants.update, tenant_id, name=checked, disabled=disabled, limits=limits)
        tenant = await asyncio.to_thread(change)
        if tenant is None:
            raise TenantNotFound(tenant_id)
        self._trusted.clear()
        self._limits.pop(tenant_id, None)
        _log.info("tenant updated id=%s disabled=%s", tenant_id, tenant.disabled)
        return tenant

    # Keys

    async def issue_key(self, tenant_id: str, name: str = "", ttl_s: int | None = None) -> NewKey:
        """Make a key; without `ttl_s` it has no end. Raises TenantNotFound, InvalidRequest."""
        if tenant_id == DEFAULT_TENANT and await asyncio.to_thread(self._tenants.get, tenant_id) is None:
            await self.create(DEFAULT_TENANT)  # it always exists; now its keys can, too
        await self.get(tenant_id)
        if ttl_s is not None and ttl_s <= 0:
            raise InvalidRequest("ttl: must be above 0 seconds", param="ttl")
        secret, now = new_secret(), int(self._clock())
        key = Key(
            id="key-" + secrets.token_hex(8),
            tenant=tenant_id,
            name=_checked_name(name),
            hash=hash_of(secret),
            hint=secret[:_HINT_LENGTH],
            created_at=now,
            expires_at=None if ttl_s is None else now + ttl_s,
        )
        await asyncio.to_thread(self._tenants.insert_key, key)
        self._look_again = float("-inf")
        _log.info("key created id=%s tenant=%s", key.id, tenant_id)
        return NewKey(key, secret)

    async def keys(self, tenant_id: str) -> Sequence[Key]:
        """Raises TenantNotFound."""
        await self.get(tenant_id)
        return await asyncio.to_thread(self._tenants.keys_of, tenant_id)

    async def revoke_key(self, key_id: str, tenant_id: str | None = None) -> Key:
        """Refuse a key from now on. Raises KeyNotFound."""
        key = await asyncio.to_thread(self._tenants.revoke, tenant_id, key_id, int(self._clock()))
        if key is None:
            raise KeyNotFound(key_id)
        self._trusted.pop(key.hash, None)
        _log.info("key revoked id=%s tenant=%s", key_id, key.tenant)
        return key


def _checked_limits(limits: Mapping[str, int]) -> dict[str, int]:
    for name, value in limits.items():
        if name not in LIMIT_NAMES:
            raise InvalidRequest(
                f"limits.{name}: there is no such limit; there are {', '.join(LIMIT_NAMES)}",
                param=f"limits.{name}",
            )
        if value < 0:
            raise InvalidRequest(f"limits.{name}: must not be below 0", param=f"limits.{name}")
    return dict(limits)


def _checked_name(name: str) -> str:
    if len(name) > _MAX_NAME:
        raise InvalidRequest(f"name: at most {_MAX_NAME} characters", param="name")
    return name
