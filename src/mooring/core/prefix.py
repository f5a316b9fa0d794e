"""A token prefix and its identity."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

Tokens = tuple[int, ...]
TOKEN_BYTES = 4
"""Of one packed token."""


@dataclass(frozen=True)
class Prefix:
    """Tokens at the start of a prompt, within one sharing scope."""

    scope: str
    """The tenant. Equal tokens of two tenants are two prefixes: a hit must not tell about others."""
    tokens: Tokens

    @cached_property
    def id(self) -> str:
        """64 hex digits over scope and tokens: equal content has equal ids, in every process.

        The model is not part of it. Stored bytes carry the model's fingerprint beside the id, so a
        cache keeps its prefix id when the model file or the library is replaced.
        """
        digest = hashlib.blake2b(digest_size=32)
        digest.update(len(self.scope).to_bytes(4, "little"))
        digest.update(self.scope.encode())
        digest.update(self.label)
        return digest.hexdigest()

    @cached_property
    def label(self) -> bytes:
        """The tokens, packed."""
        return pack(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


def common_length(a: Tokens | bytes, b: Tokens | bytes) -> int:
    """How many leading elements `a` and `b` share."""
    end = min(len(a), len(b))
    if a[:end] == b[:end]:
        return end
    low, high = 0, end  # a[:low] == b[:low]; a[:high] != b[:high]
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def pack(tokens: Sequence[int]) -> bytes:
    """Tokens as little-endian int32, 4 bytes each: the form that the KV store keeps and compares."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


def unpack(packed: bytes) -> Tokens:
    return struct.unpack(f"<{len(packed) // TOKEN_BYTES}i", packed)


def common_tokens(a: bytes, b: bytes) -> int:
    """How many leading tokens two packed prefixes share."""
    return common_length(a, b) // TOKEN_BYTES
