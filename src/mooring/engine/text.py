"""Tokens' bytes to text that may be sent: whole characters, and nothing of a stop string."""

import codecs


class TextStream:
    """The text of one answer as its tokens arrive."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        # Bytes that can never become a character turn into U+FFFD; a character's first bytes wait.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = stops
        self._held = ""
        self.stopped = False
        """A stop string appeared; everything from its first character on is dropped."""

    def push(self, data: bytes) -> str:
        """Add a token's bytes; returns the text that can be sent now, possibly none."""
        assert not self.stopped
        text = self._held + self._decoder.decode(data)
        hits = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        if hits:
            self.stopped, self._held = True, ""
            return text[: min(hits)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        sendable, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return sendable

    def finish(self) -> str:
        """The text held back in case a stop string followed. Half a character is never sent."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
