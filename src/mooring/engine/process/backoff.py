"""How long to wait before a process that ended is started again."""

SETTLED_S = 60.0
"""Who has served this long did not end because of how it starts."""
_FIRST_S = 0.5
_LONGEST_S = 60.0


class Backoff:
    """Nothing the first time, then longer and longer, until one has settled."""

    def __init__(self) -> None:
        self._ends = 0

    def after(self, served_s: float) -> float:
        """Seconds to wait after a process ended that had served so long; 0 when it never came to it."""
        if served_s >= SETTLED_S:
            self._ends = 0
        self._ends += 1
        if self._ends == 1:
            return 0.0
        return min(_FIRST_S * 2.0 ** min(self._ends - 2, 30), _LONGEST_S)
