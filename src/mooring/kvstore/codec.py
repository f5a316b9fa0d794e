"""The file format of a block: who may read it, and whether it is whole.

    [0, 24)       magic, length of the description, its checksum
    [24, 4096)    the description as JSON, zero-padded
    [4096, end)   the payload, page-aligned so that a map of it can be handed to the engine

Bytes are never trusted: a flipped bit can be accepted by the native library in silence, and another
model's state can look right (docs/pitfalls.md, 10). So every field is checked before a payload leaves.
"""

import json
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum

import xxhash

PAYLOAD_START = 4096
_MAGIC = b"MOORKV\x00\x02"  # the last byte is the format's version
_HEAD = struct.Struct("<8sQQ")


class Rejection(StrEnum):
    """Why stored bytes were not used."""

    TRUNCATED = "truncated"
    """Shorter or longer than the description says."""
    CORRUPT = "corrupt"
    """A checksum does not match, or the description cannot be read."""
    FOREIGN = "foreign"
    """Another model, library build or KV layout, another block, or not a KV file at all."""
    MISSING = "missing"
    """There is no such file any more."""
    UNREADABLE = "unreadable"
    """The file system returned an error."""


class Rejected(Exception):
    """The bytes must not be used."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Description:
    """What a file says about its payload."""

    fingerprint: str
    key: str
    parent: str
    """The key of the block before it: with this and the tokens, a file tells what it is."""
    tokens: int
    """How many the block has."""
    payload_bytes: int
    payload_checksum: str
    """XXH3-128 in hex: it guards against accidents at memory speed; it is no signature."""


def checksum(payload: memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(payload)


def encode(description: Description) -> bytes:
    """The first PAYLOAD_START bytes of the file."""
    text = json.dumps(asdict(description)).encode()
    head = _HEAD.pack(_MAGIC, len(text), xxhash.xxh3_64_intdigest(text))
    assert len(head) + len(text) <= PAYLOAD_START
    return (head + text).ljust(PAYLOAD_START, b"\x00")


def decode(data: memoryview, *, fingerprint: str, key: str) -> Description:
    """Read and verify a whole file, payload included.

    Raises:
        Rejected: with the reason; nothing of the file may be used.
    """
    if len(data) < PAYLOAD_START:
        raise Rejected(Rejection.TRUNCATED)
    magic, length, expected = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise Rejected(Rejection.FOREIGN)
    end = min(_HEAD.size + length, PAYLOAD_START)
    text = bytes(data[_HEAD.size : end])
    if xxhash.xxh3_64_intdigest(text) != expected or any(data[end:PAYLOAD_START]):
        raise Rejected(Rejection.CORRUPT)
    try:
        description = Description(**json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected(Rejection.CORRUPT) from error
    if (description.fingerprint, description.key) != (fingerprint, key):
        raise Rejected(Rejection.FOREIGN)
    payload = data[PAYLOAD_START:]
    if len(payload) != description.payload_bytes:
        raise Rejected(Rejection.TRUNCATED)
    if checksum(payload) != description.payload_checksum:
        raise Rejected(Rejection.CORRUPT)
    return description
