"""What callers see of the tree: ranges of tokens, and the blocks that hold them."""

from dataclasses import dataclass

BLOCK_TOKENS = 256


@dataclass(frozen=True)
class Cut:
    """Tokens [start, end) of a path."""

    start: int
    end: int


@dataclass(frozen=True)
class Stored:
    """A block that a tier holds, as far as it matches."""

    key: str
    start: int
    """The position of its first token."""
    end: int
    """[start, end) is what its payload covers."""
    used: int
    """[start, used) equals the tokens asked for; below `end` only for the last block of a match."""
    size_bytes: int
    tier: str
    """"ram" or "disk": where a fetch would take it from."""


@dataclass(frozen=True)
class Match:
    """The longest stored prefix of what was asked for."""

    blocks: tuple[Stored, ...]
    tokens: int
    """`blocks[-1].used`, or 0."""
