"""Frames arrive whole and in order, however the bytes are cut."""

import asyncio
import socket

from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.process.channel import Channel


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_channel_puts_messages_together_again(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(sent_as(message) for message in messages)
    heard: list[object] = []
    channel = Channel(heard.append, lambda: None)
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        channel.data_received(wire[:cut])
        wire = wire[cut:]
    assert heard == messages


def sent_as(message: object) -> bytes:
    """The bytes that a channel sends."""
    written: list[bytes] = []

    class Wire(asyncio.Transport):
        def write(self, data: bytes) -> None:
            written.append(data)

        def is_closing(self) -> bool:
            return False

    channel = Channel(lambda _: None, lambda: None)
    channel.connection_made(Wire())
    channel.send(message)
    return b"".join(written)


def test_channel_says_all_before_it_ends_and_nothing_after() -> None:
    async def talk() -> tuple[list[object], bool]:
        left, right = socket.socketpair()
        heard: list[object] = []
        ended = asyncio.Event()
        listener = await Channel.over(right, heard.append, ended.set)
        speaker = await Channel.over(left, lambda _: None, lambda: None)
        for message in ("small", b"l" * 5_000_000, "last"):
            speaker.send(message)
        speaker.close()
        speaker.send("too late")
        await ended.wait()
        listener.send("nobody is there")
        return heard, listener.ended

    heard, ended = asyncio.run(talk())
    assert heard == ["small", b"l" * 5_000_000, "last"]
    assert ended
