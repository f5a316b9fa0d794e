"""Pins: paths that must stay on disk, by the id of who wants it. Knows no files."""

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from mooring.core.errors import MooringError
from mooring.kvstore.block import Block
from mooring.kvstore.space import DiskSpace


@dataclass(eq=False)
class Pin:
    """One path, from the root's child to `path[-1]`."""

    prefix_id: str
    path: list[Block]
    committed: bool = False
    """Every block is durable, and so is the pin."""
    waiting: "list[Future[None]]" = field(default_factory=list)

    def fail(self, error: MooringError) -> None:
        for future in self.waiting:
            future.set_exception(error)
        self.waiting.clear()

    def succeed(self) -> None:
        self.committed = True
        for future in self.waiting:
            future.set_result(None)
        self.waiting.clear()


class Pins:
    """Those that are there or under way, and how many run through each block."""

    def __init__(self, space: DiskSpace) -> None:
        self._space = space
        self._pins: dict[str, Pin] = {}

    def get(self, prefix_id: str) -> Pin | None:
        return self._pins.get(prefix_id)

    def ids(self) -> list[str]:
        return list(self._pins)

    def holds(self, pin: Pin) -> bool:
        """Whether it was neither released nor broken meanwhile."""
        return self._pins.get(pin.prefix_id) is pin

    def add(self, pin: Pin) -> None:
        self._pins[pin.prefix_id] = pin
        for block in pin.path:
            block.pins += 1
            if block.pins == 1:
                self._space.pinned_bytes += block.file_bytes

    def remove(self, pin: Pin) -> None:
        del self._pins[pin.prefix_id]
        for block in pin.path:
            block.pins -= 1
            if not block.pins:
                self._space.pinned_bytes -= block.file_bytes

    def through(self, blocks: Collection[Block]) -> list[Pin]:
        """The pins whose path has one of these blocks."""
        lost = set(blocks)
        return [pin for pin in self._pins.values() if not lost.isdisjoint(pin.path)]

    def check(self) -> None:
        counted: dict[Block, int] = {}
        for pin in self._pins.values():
            assert pin.path
            assert all(block.alive for block in pin.path)
            assert not pin.committed or all(block.on_disk for block in pin.path)
            for block in pin.path:
                counted[block] = counted.get(block, 0) + 1
        assert all(block.pins == count for block, count in counted.items())
        assert self._space.pinned_bytes == sum(block.file_bytes for block in counted)
