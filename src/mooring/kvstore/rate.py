"""How fast a tier is read: a moving average over what was read lately."""

_MEMORY = 0.9
"""How much of the past each new measurement leaves standing."""


class Rate:
    """Seconds a byte, weighted by bytes, so that small reads do not shout down large ones."""

    def __init__(self, bytes_per_second: float) -> None:
        """What is believed before the first measurement."""
        self._believed = bytes_per_second
        self._bytes = 0.0
        self._seconds = 0.0

    def measured(self, size_bytes: int, seconds: float) -> None:
        self._bytes = self._bytes * _MEMORY + size_bytes
        self._seconds = self._seconds * _MEMORY + seconds

    @property
    def bytes_per_second(self) -> float:
        if self._bytes == 0 or self._seconds == 0:
            return self._believed
        return self._bytes / self._seconds

    def seconds_for(self, size_bytes: int) -> float:
        return size_bytes / self.bytes_per_second
