"""What an answer consists of."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Content:
    """Text for whoever asked."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call of a known tool."""

    index: int
    """From 0 within the answer."""
    name: str

    @property
    def id(self) -> str:
        """`<name>:<index>` (docs/moonshot-api.md, section 3)."""
        return f"{self.name}:{self.index}"


@dataclass(frozen=True)
class CallArguments:
    """The next piece of a call's arguments: JSON, as the model wrote it."""

    index: int
    text: str


Part = Content | CallBegun | CallArguments

Parsing = Generator[Part | None, None, T]
"""A parser at work. It yields parts, or None when it needs more text than there is."""
