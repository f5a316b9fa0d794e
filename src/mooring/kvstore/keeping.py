"""Pins on their way to the disk and back, and blocks that leave; the writer is fed here.

pin      every block durable -> the pin committed -> its future completes in `poll`
release  the pin taken back -> blocks that nothing else needs leave, from the tail upward
"""

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from functools import partial

from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.kvstore.answers import Answers
from mooring.kvstore.block import Block, OnDisk
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.index import Pinned
from mooring.kvstore.pins import Pin, Pins
from mooring.kvstore.tree import Tree
from mooring.kvstore.writer import Outcome, Work, Writer

_log = logging.getLogger("mooring.kvstore")


class Keeping:
    """What must be on disk, and what must not be there any more."""

    def __init__(
        self,
        tree: Tree,
        holdings: Holdings,
        pins: Pins,
        writer: Writer,
        answers: Answers,
        writing: Executor,
        on_rejected: Callable[[Rejection], None],
    ) -> None:
        self._tree = tree
        self._holdings = holdings
        self._pins = pins
        self._writer = writer
        self._answers = answers
        self._writing = writing
        self._on_rejected = on_rejected
        self._released: set[Block] = set()
        """Their pin was released while they were being written: they go when that has ended."""
        self._unpinned: list[str] = []
        self._works = 0
        """That the writer has not ended."""

    def pin(self, prefix_id: str, path: list[Block]) -> "Future[None]":
        """Keep this path; empty when it is not held."""
        future: Future[None] = Future()
        pin = self._pins.get(prefix_id)
        if pin is not None:
            pin.waiting.append(future)
            if pin.committed:
                self._answers.post(pin.succeed)
        elif not path:
            error = EngineFailed("what should be kept is not held")
            self._answers.post(partial(future.set_exception, error))
        else:
            self._begin(Pin(prefix_id, path, waiting=[future]))
        return future

    def release(self, prefix_ids: Collection[str]) -> None:
        for prefix_id in prefix_ids:
            if (pin := self._pins.get(prefix_id)) is not None:
                self._unpin(pin, EngineFailed("the cache was released while it was being saved"))
                self._prune(pin.path[-1])
        self.flush()

    def reject(self, block: Block, reason: Rejection) -> None:
        """A block's file cannot be used: it leaves the tree with everything below it."""
        if block.alive:
            _log.warning("kv block rejected key=%s reason=%s", block.key, reason)
            self._on_rejected(reason)
            self.lose(block)

    def lose(self, block: Block) -> None:
        gone = self._tree.below(block)
        if any(each.pins for each in gone):
            for pin in self._pins.through(gone):
                _log.error("kv pin broken, to be computed again prefix=%s", pin.prefix_id[:12])
                self._unpin(pin, EngineFailed("the cache's bytes were lost while it was being saved"))
        self._holdings.lose(gone)

    def poll(self) -> None:
        """Hand the writer what came up, unless it is busy: then more of it shares one commit."""
        if not self._works:
            self.flush()

    def flush(self) -> None:
        """Hand the writer the removals and spills that came up."""
        work = self._holdings.take_work(self._unpinned)
        self._unpinned = []
        if work is not None:
            self._start(work, None)

    def submit(self, work: Work, pin: Pin | None = None) -> None:
        """Work that cannot wait; what came up before it goes first, as its files may be the same."""
        self.flush()
        self._start(work, pin)

    def close(self) -> None:
        """Finish what was begun, and note in the index what was used since its rows were written."""
        self.submit(Work(uses=self._holdings.uses()))
        self._writing.shutdown()
        self._answers.apply()
        for prefix_id in self._pins.ids():
            if (pin := self._pins.get(prefix_id)) is not None:
                pin.fail(EngineFailed("the server is stopping"))

    def _begin(self, pin: Pin) -> None:
        """Write what is not on disk, sync what may not be durable, commit the pin: one visit."""
        self._pins.add(pin)
        for block in pin.path:
            self._holdings.refresh(block)
        size_bytes = sum(b.file_bytes for b in pin.path if not (b.on_disk or b.writes))
        if not self._holdings.make_disk_room(size_bytes):
            self._undo(pin)
            self._answers.post(partial(pin.fail, _full(size_bytes)))
            return
        saves = []
        for block in pin.path:
            if block.on_disk is not OnDisk.DURABLE:
                self._holdings.claim(block)
                saves.append(self._holdings.save(block))
        row = Pinned(pin.prefix_id, pin.path[-1].digest)
        self.submit(Work(saves=saves, pin=row, durable=True), pin)

    def _undo(self, pin: Pin) -> None:
        self._pins.remove(pin)
        for block in pin.path:
            if block.alive:
                self._holdings.refresh(block)

    def _unpin(self, pin: Pin, error: MooringError) -> None:
        """Take back a pin that is committed, or may yet be."""
        self._undo(pin)
        pin.fail(error)
        self._unpinned.append(pin.prefix_id)

    def _prune(self, block: Block) -> None:
        """Drop a block that nothing needs, then its parent."""
        while block.alive and not (block.is_root or block.pins or block.children):
            if block.writes:
                self._released.add(block)
                return
            parent = block.parent
            assert parent is not None
            self._holdings.lose([block])
            block = parent

    def _start(self, work: Work, pin: Pin | None) -> None:
        self._works += 1
        task = self._writing.submit(self._writer.do, work)
        self._answers.when_done(task, partial(self._written, pin, task))

    def _written(self, pin: Pin | None, task: "Future[Outcome]") -> None:
        self._works -= 1
        outcome = task.result()
        lost = self._holdings.apply(outcome)
        if pin is not None and self._pins.holds(pin):
            self._pinned(pin, outcome)
        if isinstance(outcome.error, Rejected) and outcome.rejected is not None:
            self.reject(outcome.rejected, outcome.error.reason)
        for block in lost:
            if block.alive:
                self.lose(block)
        for save in outcome.work.saves:
            if save.block in self._released and not save.block.writes:
                self._released.discard(save.block)
                self._prune(save.block)

    def _pinned(self, pin: Pin, outcome: Outcome) -> None:
        if outcome.error is None:
            pin.succeed()
            return
        self._undo(pin)
        if outcome.no_room:
            pin.fail(_full(sum(save.block.file_bytes for save in outcome.work.saves)))
        else:
            pin.fail(EngineFailed(f"the cache was not saved: {outcome.error}"))


def _full(size_bytes: int) -> StorageFull:
    return StorageFull(
        f"no room on disk to keep {size_bytes / 1e6:.1f} MB of KV state:"
        " delete caches or free space in the data directory"
    )
