"""An uploaded document, of which the text is kept."""

import secrets
import string
from dataclasses import dataclass
from enum import StrEnum

_ID_ALPHABET = string.ascii_lowercase + string.digits
PURPOSE = "file-extract"
"""The one purpose that files have here."""


class FileStatus(StrEnum):
    """Where a file is in its life. Clients see the last two only."""

    PENDING = "pending"
    """Its text is being read."""
    OK = "ok"
    ERROR = "error"
    """It has no text that could be read; `problem` says why."""


@dataclass(frozen=True)
class File:
    """One document of a tenant."""

    id: str
    tenant: str
    filename: str
    """As the client named it; never a path here."""
    bytes: int
    """Of the document as it was sent."""
    created_at: int
    """Unix seconds."""
    status: FileStatus
    problem: str | None = None


def new_file_id() -> str:
    return "file-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))
