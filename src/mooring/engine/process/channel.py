"""Messages over a connected socket, each a frame: its length in four bytes, then its pickle.

Pickle executes what it is told to, so both ends must be ours: they are a socket pair's.
"""

import asyncio
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

_LENGTH_BYTES = 4


class Channel(asyncio.Protocol):
    """One end. `on_message` is called for each message in order, then `on_end` once."""

    def __init__(self, on_message: Callable[[Any], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.ended = False
        """The other end has gone, or this one was closed."""

    @classmethod
    async def over(
        cls, end: socket.socket, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> "Channel":
        """Takes the socket over."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(on_message, on_end), sock=end)
        return channel

    def send(self, message: object) -> None:
        """Send, or do nothing when the channel has ended."""
        if self._transport is not None and not self._transport.is_closing():
            frame = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._transport.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)

    def close(self) -> None:
        """Send what has not been sent yet, then end."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not `isinstance`: uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while (begin := start + _LENGTH_BYTES) <= len(buffer):
            end = begin + int.from_bytes(buffer[start:begin], "big")
            if end > len(buffer):
                break
            with memoryview(buffer) as view:
                message = pickle.loads(view[begin:end])  # noqa: S301 - our own process wrote it
            start = end
            self._on_message(message)
        del buffer[:start]

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended = True
        self._on_end()
