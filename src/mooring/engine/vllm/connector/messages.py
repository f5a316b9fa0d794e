"""What is said to and by the connector: a request's orders, the reply's report, scheduler to worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mooring.kvstore.shared.manifest import Manifest

KEY = "mooring"
"""Orders and reports stand under this name in `kv_transfer_params`."""


class Code(StrEnum):
    """What is wrong, for programs."""

    PIN_BUDGET = "pin_budget"
    """No room to pin on the device; the context is saved all the same."""
    STORAGE_FULL = "storage_full"
    """The shared tier has no room."""
    STORAGE = "storage"
    """The shared tier could not be read or written."""
    MISMATCH = "mismatch"
    """Tokens, scope or fingerprint are not those of the id."""
    TOO_SHORT = "too_short"
    """Shorter than one block: there is nothing to keep."""
    UNKNOWN = "unknown"
    """Neither on the device nor in the shared tier."""
    DAMAGED = "damaged"
    """In the shared tier, and must not be used."""
    MALFORMED = "malformed"
    """The orders cannot be read."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, for programs and for people."""

    code: Code
    message: str

    def as_json(self) -> dict[str, str]:
        return {"code": self.code.value, "message": self.message}


@dataclass(frozen=True)
class Keep:
    """Compute or load `prompt[:tokens]`, pin it, save it."""

    id: str
    tokens: int
    lease_s: float


@dataclass(frozen=True)
class Use:
    """The prompt begins with this kept prefix."""

    id: str
    tokens: int
    lease_s: float


@dataclass(frozen=True)
class Release:
    """Unpin these; with `delete` remove them from the shared tier, too."""

    ids: tuple[str, ...]
    delete: bool


@dataclass(frozen=True)
class ReleaseAllBut:
    """Unpin all others; with `delete` remove them from the shared tier, too."""

    ids: tuple[str, ...]
    delete: bool


@dataclass(frozen=True)
class Stat:
    """Nothing but the report."""


@dataclass(frozen=True)
class List:
    """Nothing but a report that names everything that is kept."""


Order = Keep | Use | Release | ReleaseAllBut | Stat | List
_VERBS = ("keep", "use", "release", "release_all_but", "stat", "list")


class Malformed(Exception):
    """The orders cannot be read; the message says why."""


def read_order(params: Mapping[str, Any] | None) -> Order | None:
    """The order in a request's `kv_transfer_params`; None when there is none for us.

    Raises:
        Malformed: there is one that cannot be read.
    """
    said = (params or {}).get(KEY)
    if said is None:
        return None
    if not isinstance(said, Mapping):
        raise Malformed(f"{KEY} must be an object")
    verbs = [verb for verb in _VERBS if verb in said]
    if len(verbs) != 1:
        raise Malformed(f"exactly one order is expected, not {verbs}")
    match verbs[0]:
        case "keep":
            return Keep(_id(said["keep"]), *_extent(said))
        case "use":
            return Use(_id(said["use"]), *_extent(said))
        case "release":
            return Release(_ids(said["release"]), said.get("delete") is True)
        case "release_all_but":
            return ReleaseAllBut(_ids(said["release_all_but"]), said.get("delete") is True)
        case "list":
            return List()
        case _:
            return Stat()


def _id(said: Any) -> str:
    # An id becomes a file's name: nothing but what a hash looks like may pass.
    if not isinstance(said, str) or len(said) != 64 or not set(said) <= set("0123456789abcdef"):
        raise Malformed("an id is 64 hex digits")
    return said


def _ids(said: Any) -> tuple[str, ...]:
    if not isinstance(said, list):
        raise Malformed("a list of ids is expected")
    return tuple(_id(one) for one in said)


def _extent(said: Mapping[str, Any]) -> tuple[int, float]:
    tokens: Any = said.get("tokens")
    lease_s: Any = said.get("lease_s")
    if type(tokens) is not int or tokens < 1:
        raise Malformed("tokens must be a positive integer")
    if type(lease_s) not in (int, float) or not 0 < lease_s < float("inf"):
        raise Malformed("lease_s must be a positive number")
    return tokens, float(lease_s)


@dataclass(frozen=True)
class Save:
    """Write these device blocks to the shared tier."""

    manifest: Manifest
    block_ids: tuple[int, ...]


@dataclass(frozen=True)
class Load:
    """Fill a waiting request's device blocks with the context's blocks [first, first + n)."""

    request: str
    manifest: Manifest
    first: int
    block_ids: tuple[int, ...]


@dataclass(frozen=True)
class Refusal:
    """End a waiting request, as if its load had failed."""

    request: str


@dataclass
class Step:
    """What the scheduler's side tells the worker's for one step."""

    saves: list[Save] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass
class Outcome:
    """What the worker's side tells the scheduler's after a step, by context id."""

    saved: dict[str, Problem | None] = field(default_factory=dict)
    """Saves that ended; None: the context is durable."""
    failed_loads: dict[str, Problem] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.saved or self.failed_loads)
