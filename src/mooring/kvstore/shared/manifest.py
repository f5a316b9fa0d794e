"""What the shared tier says about a context: which objects hold its bytes, and whether all are there."""

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.codec import Rejected, Rejection

_FORMAT = 1
_MOST_OBJECTS = 1 << 20
"""A manifest that names more was not written by us, and is not worked through."""


@dataclass(frozen=True)
class ObjectRange:
    """One object: the KV bytes of the blocks [start, end) of a context."""

    key: str
    start: int
    end: int


@dataclass(frozen=True)
class Manifest:
    """Written before the first object (incomplete) and after the last one (complete).

    So whatever lies in the tier can be found from its manifests, also after a crash.
    """

    context: str
    """The prefix's id: a hash over scope and tokens."""
    fingerprint: str
    tokens: int
    """Those that are stored: whole blocks."""
    block_tokens: int
    block_bytes: int
    """Of all layers."""
    object_blocks: int
    """The most blocks that one object has."""
    complete: bool
    written_at: float
    """Unix time at which writing began."""

    @property
    def blocks(self) -> int:
        return self.tokens // self.block_tokens

    def objects(self) -> tuple[ObjectRange, ...]:
        """In order. Keys are of the content: the context's id is a hash over scope and tokens."""
        return tuple(
            ObjectRange(self._object_key(start, end), start, end)
            for start in range(0, self.blocks, self.object_blocks)
            for end in [min(start + self.object_blocks, self.blocks)]
        )

    def _object_key(self, start: int, end: int) -> str:
        text = f"{self.fingerprint} {self.context} {self.block_tokens} {start} {end}"
        return blake2b(text.encode(), digest_size=16, person=b"mooring object").hexdigest()


def encode(manifest: Manifest) -> NDArray[np.uint8]:
    text = json.dumps({"format": _FORMAT} | asdict(manifest)).encode()
    return np.frombuffer(text, np.uint8)


def decode(payload: NDArray[np.uint8]) -> Manifest:
    """Raises Rejected for anything that `encode` cannot have written."""
    try:
        fields = json.loads(payload.tobytes())
        if fields.pop("format") != _FORMAT:
            raise Rejected(Rejection.FOREIGN)
        manifest = Manifest(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Rejected(Rejection.CORRUPT) from error
    if not _is_sound(manifest):
        raise Rejected(Rejection.CORRUPT)
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    def positive(*numbers: Any) -> bool:
        return all(type(number) is int and number > 0 for number in numbers)

    return (
        positive(manifest.tokens, manifest.block_tokens, manifest.block_bytes, manifest.object_blocks)
        and manifest.tokens % manifest.block_tokens == 0
        and manifest.blocks // manifest.object_blocks < _MOST_OBJECTS
        and type(manifest.complete) is bool
        and type(manifest.context) is str
        and type(manifest.fingerprint) is str
        and isinstance(manifest.written_at, (int, float))
    )
