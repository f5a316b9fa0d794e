"""Why a cache that a request named did not apply to it."""

from dataclasses import dataclass
from enum import StrEnum


class MissReason(StrEnum):
    """In the order they are looked for."""

    NOT_FOUND = "not_found"
    EXPIRED = "expired"
    MODEL_CHANGED = "model_changed"
    """The cache was made for a model that is not served here any more."""
    TOOLS_CHANGED = "tools_changed"
    MESSAGES_CHANGED = "messages_changed"
    TEMPLATE_MOVED_PREFIX = "template_moved_prefix"
    """The same messages, but the chat template renders them differently before these follow-ups."""


@dataclass(frozen=True)
class Miss:
    """A reason, and for changed messages the index of the first that differs."""

    reason: MissReason
    index: int | None = None

    def __str__(self) -> str:
        """As it stands in the header `X-Context-Cache-Miss`."""
        return self.reason if self.index is None else f"{self.reason}; index={self.index}"
