"""Which worker serves a request. Pure: what is known of the workers in, a choice out.

The best worker is the one that has least to do before the first token: what waits there already, and
what it would have to compute of this prompt. So the one that holds the prompt's beginning wins until
others' idleness outweighs what they would have to compute, and equal holdings are decided by load.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

_RUNNING_TOKENS = 32
"""What an answer that is being drawn delays a newcomer by, in prompt tokens."""
_LOAD_SPEEDUP = 10
"""Tokens come from the shared tier this much faster than they are computed, at least."""


@dataclass(frozen=True)
class Standing:
    """One worker that takes requests, as seen from one request."""

    name: str
    waiting_tokens: int
    """Prompt tokens that it has been asked to compute and has not."""
    running: int
    """Answers it is drawing."""
    held_tokens: int
    """Leading tokens of this prompt that it is believed to hold."""


@dataclass(frozen=True)
class Wanted:
    """What the choice depends on, of the request."""

    prompt_tokens: int
    stored_tokens: int
    """Leading tokens that any worker can load from the shared tier."""
    key: bytes
    """Equal for requests that had better meet: decides when nothing else does."""


def choose(workers: Sequence[Standing], wanted: Wanted) -> Standing:
    """The best of at least one; the same for everybody who sees the same, in whatever order."""
    return min(workers, key=lambda worker: (cost(worker, wanted), -_rank(worker.name, wanted.key)))


def cost(worker: Standing, wanted: Wanted) -> int:
    """Prompt tokens' worth of work before the first token."""
    held = min(worker.held_tokens, wanted.prompt_tokens)
    loaded = max(0, min(wanted.stored_tokens, wanted.prompt_tokens) - held)
    computed = wanted.prompt_tokens - held - loaded
    busy = worker.waiting_tokens + _RUNNING_TOKENS * worker.running
    return busy + computed + -(-loaded // _LOAD_SPEEDUP)


def _rank(name: str, key: bytes) -> int:
    """Rendezvous hashing: a worker that goes or comes moves only its own share of the keys."""
    digest = hashlib.blake2b(key, digest_size=8, person=b"rendezvous")
    digest.update(name.encode())
    return int.from_bytes(digest.digest())
