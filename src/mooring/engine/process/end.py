"""How the engine's process ended, in words for the log and for clients."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class End:
    """The end of a process."""

    how: str
    served_s: float
    """From the moment it was ready; 0 when it never was."""
    running: Mapping[str, int]
    """How many calls of each kind were in it."""

    @property
    def victims(self) -> str:
        """`generate:3,keep:1`"""
        return ",".join(f"{what}:{count}" for what, count in sorted(self.running.items())) or "nothing"


def how_it_ended(status: int) -> str:
    """A return code as subprocess gives it: the exit status, or minus the signal's number."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        name = str(-status)
    if -status == signal.SIGKILL:
        return f"signal {name}, as when memory runs out"
    return f"signal {name}"
