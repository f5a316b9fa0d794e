"""Who owns caches, tags and files, and the keys they show. Times are Unix seconds."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_TENANT = "default"
"""Whom the one configured key, or a server without keys, speaks for."""


@dataclass(frozen=True)
class Tenant:
    """A team or a customer; nothing of one is seen by another."""

    id: str
    name: str
    created_at: int
    disabled: bool = False
    """Its keys are refused; what it owns stays."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Its own, by the names of `core.limits.Limits`; 0 lifts a configured one."""


@dataclass(frozen=True)
class Key:
    """A way to speak for a tenant. The secret itself is nowhere: it is shown once, when it is made."""

    id: str
    tenant: str
    name: str
    hash: str
    hint: str
    """How the secret begins, to tell keys apart."""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_secret() -> str:
    """A key's text: 256 random bits."""
    return "mk-" + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """What is kept of a secret. A fast hash does: nobody can try 2**256 secrets."""
    return hashlib.sha256(secret.encode()).hexdigest()
