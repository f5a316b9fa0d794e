"""The store: KV bytes of token blocks in a prefix tree per scope, in RAM and on disk.

Everything here runs on one thread, the engine's decode thread, and returns at once. File work is done by
one writer and two readers, which hand their results over to `poll`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from mooring.config import KvStoreConfig
from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.core.prefix import TOKEN_BYTES
from mooring.kvstore import fetch as reading
from mooring.kvstore.block import Block, OnDisk
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.eviction import Lru, Policy
from mooring.kvstore.fetch import Fetch, Read
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.index import Index, Pinned
from mooring.kvstore.match import BLOCK_TOKENS, Cut, Match, Stored
from mooring.kvstore.pins import Pin, Pins
from mooring.kvstore.rate import Rate
from mooring.kvstore.restore import restore
from mooring.kvstore.space import DiskSpace
from mooring.kvstore.tree import Shared, Tree
from mooring.kvstore.writer import Outcome, Work, Writer

_log = logging.getLogger("mooring.kvstore")
_LEAST_SPILL_BYTES = 256 << 20


class KvStore:
    """Blocks by their path of tokens, found again after a restart."""

    def __init__(
        self,
        root: Path,
        fingerprint: str,
        config: KvStoreConfig,
        *,
        block_tokens: int | None = BLOCK_TOKENS,
        policy: Policy | None = None,
        spill_bytes: int | None = None,
        threads: Callable[[int, str], Executor] = ThreadPoolExecutor,
        wake: Callable[[], None] = lambda: None,
        on_rejected: Callable[[Rejection], None] = lambda _: None,
    ) -> None:
        """Opens `root` and stands with everything that a former process left there for this model.

        `wake` is called, from an I/O thread, when `poll` would find something new; `on_rejected` hears,
        in `poll`, of every block whose file could not be used. Bytes that wait to be written are bounded
        by `spill_bytes` (default: a quarter of the RAM budget, and at least 256 MiB). `threads` makes
        the readers and the writer: how many, and their name.

        Raises:
            StartRefused: the index cannot be opened.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._disk = DiskTier(root / "blocks", fingerprint)
        self._disk.remove_unfinished()
        self._index = Index(root / "index.sqlite3", fingerprint)
        self._writer = Writer(self._disk, self._index)
        self._space = DiskSpace(self._disk, config.disk_bytes, config.disk_reserve_bytes)
        self._tree = Tree(block_tokens)
        self._holdings = Holdings(
            self._tree,
            policy or make_policy(config.policy),
            self._space,
            ram_bytes=config.ram_bytes,
            spill_bytes=max(config.ram_bytes // 4, _LEAST_SPILL_BYTES)
            if spill_bytes is None
            else spill_bytes,
        )
        self._promotable_bytes = config.ram_bytes
        self._pins = Pins(self._space)
        self._released: set[Block] = set()
        """Their pin was released while they were being written: they go when that has ended."""
        self._unpinned: list[str] = []
        self._rates = {"ram": Rate(8e9), "disk": Rate(2e9)}
        self._wake = wake
        self._on_rejected = on_rejected
        self._answers: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._readers = threads(2, "mooring-kv-read")
        self._writing = threads(1, "mooring-kv-write")
        self._spilling = False
        self._closing = False
        leftovers = restore(self._index.found, self._disk.keys(), self._tree, self._holdings, self._pins)
        self._index.forget_found()
        self._holdings.make_disk_room(0)
        self._submit(Work(removed=leftovers.keys, unpinned=leftovers.prefix_ids))

    # What is held

    def match(self, scope: str, tokens: bytes) -> Match:
        """The longest stored prefix of the packed tokens; only its last block may be used in part."""
        blocks = tuple(_describe(shared) for shared in self._tree.match(scope, tokens))
        return Match(blocks, blocks[-1].used if blocks else 0)

    def missing(self, scope: str, tokens: bytes) -> list[Cut]:
        """The blocks of this path, tail included, that no tier holds."""
        return self._tree.missing(scope, tokens)

    def add(self, scope: str, tokens: bytes, cut: Cut, payload: NDArray[np.uint8]) -> None:
        """Hold a block that was just computed. `tokens` is its path, at least up to `cut.end`.

        Nothing happens when the block before it is held no longer. The payload must not be changed any
        more.
        """
        label = tokens[cut.start * TOKEN_BYTES : cut.end * TOKEN_BYTES]
        assert len(label) == (cut.end - cut.start) * TOKEN_BYTES > 0
        parent = self._tree.parent_for(scope, tokens, cut.start)
        if parent is None:
            _log.debug("kv block not held, its parent is gone start=%d", cut.start)
            return
        assert self._tree.may_have(parent, label), "cuts are those of `missing`"
        block = self._tree.child(parent, label)
        if block is None:
            block = self._tree.insert(parent, label, payload.nbytes)
            self._holdings.use(block)
            self._holdings.hold(block, payload)
            for tail in self._tree.tails_within(parent, label):
                if not (tail.pins or tail.writes or tail.reads):
                    self._lose(tail)
        else:
            self._holdings.use(block)
        if block.alive:
            self._tree.remember(scope, tokens[: cut.end * TOKEN_BYTES], block)

    def touch(self, blocks: Sequence[Stored]) -> None:
        """These were used, and the path to them, without being fetched: they were resident."""
        held = [block for stored in blocks if (block := self._find(stored)) is not None]
        if held:
            first = held[0].parent
            before = [] if first is None else self._tree.path(first)
            for block in reversed([*before, *held]):
                self._holdings.use(block)

    # Reading

    def fetch(self, blocks: Sequence[Stored]) -> Fetch:
        """Begin to read: what is in RAM is there at once, files are mapped and verified by a reader."""
        self.touch(blocks)
        fetch = Fetch(blocks)
        for index, stored in enumerate(fetch.blocks):
            block = self._find(stored)
            if block is None:
                fetch.fill(index, None, stored.tier)
            elif block.readable_at_once:
                fetch.fill(index, self._holdings.payload(block), "ram")
            else:
                block.reads += 1
                self._holdings.refresh(block)
                task = self._readers.submit(reading.read, self._disk, block.key)
                fetch.begin(index, task)
                self._when_done(task, partial(self._read, fetch, index, block, task))
        return fetch

    def seconds_to_read(self, blocks: Sequence[Stored]) -> float:
        """By what reading from each tier took lately."""
        return sum(self._rates[block.tier].seconds_for(block.size_bytes) for block in blocks)

    # Keeping

    def pin(self, prefix_id: str, scope: str, tokens: bytes) -> "Future[None]":
        """Keep a held path on disk until it is released; the future completes when it is durable.

        It fails with StorageFull when the disk cannot hold it, and with EngineFailed when a block of it
        is not held, or it is released meanwhile.
        """
        future: Future[None] = Future()
        pin = self._pins.get(prefix_id)
        if pin is not None:
            pin.waiting.append(future)
            if pin.committed:
                self._answer(pin.succeed)
            return future
        path = self._tree.cover(scope, tokens)
        if not path or path[-1].end * TOKEN_BYTES < len(tokens):
            self._answer(partial(future.set_exception, EngineFailed("what should be kept is not held")))
            return future
        pin = Pin(prefix_id, path, waiting=[future])
        self._begin(pin)
        return future

    def kept(self, prefix_id: str) -> bool:
        """Pinned, and every block of it is durable on disk."""
        pin = self._pins.get(prefix_id)
        return pin is not None and pin.committed

    def keeping(self, prefix_id: str) -> bool:
        """A pin is under way."""
        pin = self._pins.get(prefix_id)
        return pin is not None and not pin.committed

    def release(self, prefix_id: str) -> None:
        """Unpin; blocks that nothing else needs leave all tiers, from the tail upward."""
        self._release([prefix_id])

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._release(set(self._pins.ids()).difference(prefix_ids))

    def room_for(self, size_bytes: int) -> bool:
        """Whether so many more pinned bytes fit, if everything automatic makes way."""
        return self._space.room_for_pinned_bytes() >= size_bytes

    # The thread's turn

    def poll(self) -> None:
        """Apply what the I/O threads have done; give them what came up since."""
        while True:
            try:
                answer = self._answers.get_nowait()
            except Empty:
                break
            answer()
        self._holdings.shrink_ram()
        if not self._spilling:  # so what comes up meanwhile shares one commit
            self._flush()

    def close(self) -> None:
        """Finish the writes that were begun; nothing may be called afterwards."""
        self._closing = True
        self._readers.shutdown(cancel_futures=True)
        self._flush(uses=True)
        self._writing.shutdown()
        while not self._answers.empty():
            self._answers.get()()
        for prefix_id in self._pins.ids():
            if (pin := self._pins.get(prefix_id)) is not None:
                pin.fail(EngineFailed("the server is stopping"))
        self._index.close()

    def check(self) -> None:
        """Assert what holds between any two calls."""
        self._tree.check()
        self._holdings.check()
        self._pins.check()

    @property
    def blocks(self) -> int:
        return len(self._tree)

    @property
    def ram_bytes(self) -> int:
        """Payloads in RAM, those on their way to disk included."""
        return self._holdings.ram_bytes

    @property
    def disk_bytes(self) -> int:
        """Files, those being written included."""
        return self._space.used_bytes

    @property
    def pinned_bytes(self) -> int:
        """Of `disk_bytes`, what may not be evicted."""
        return self._space.pinned_bytes

    def _find(self, stored: Stored) -> Block | None:
        return self._tree.get(bytes.fromhex(stored.key))

    def _begin(self, pin: Pin) -> None:
        """Write what is not on disk, sync what may not be durable, commit the pin: one visit."""
        self._pins.add(pin)
        for block in pin.path:
            self._holdings.refresh(block)
        size_bytes = sum(b.file_bytes for b in pin.path if not (b.on_disk or b.writes))
        if not self._holdings.make_disk_room(size_bytes):
            self._undo(pin)
            self._answer(partial(pin.fail, _full(size_bytes)))
            return
        saves = []
        for block in pin.path:
            if block.on_disk is not OnDisk.DURABLE:
                self._holdings.claim(block)
                saves.append(self._holdings.save(block))
        row = Pinned(pin.prefix_id, pin.path[-1].digest)
        self._submit(Work(saves=saves, pin=row, durable=True), pin)

    def _release(self, prefix_ids: Collection[str]) -> None:
        for prefix_id in prefix_ids:
            if (pin := self._pins.get(prefix_id)) is not None:
                self._unpin(pin, EngineFailed("the cache was released while it was being saved"))
                self._prune(pin.path[-1])
        self._flush()

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

    def _lose(self, block: Block) -> None:
        """The block is gone or bad: it leaves the tree with everything below it."""
        gone = self._tree.below(block)
        if any(each.pins for each in gone):
            for pin in self._pins.through(gone):
                _log.error("kv pin broken, to be computed again prefix=%s", pin.prefix_id[:12])
                self._unpin(pin, EngineFailed("the cache's bytes were damaged while it was being saved"))
        self._holdings.lose(gone)

    def _flush(self, *, uses: bool = False) -> None:
        """Hand the writer the removals and spills that came up."""
        work = self._holdings.take_work()
        unpinned, self._unpinned = self._unpinned, []
        noted = self._holdings.uses() if uses else []
        if work is None and not unpinned and not noted:
            return
        work = work or Work()
        self._spilling = True
        self._start(
            Work(work.removed, unpinned, work.saves, uses=noted, freed_bytes=work.freed_bytes), None
        )

    def _submit(self, work: Work, pin: Pin | None = None) -> None:
        """Work that cannot wait; what came up before it goes first."""
        self._flush()
        self._start(work, pin)

    def _start(self, work: Work, pin: Pin | None) -> None:
        task = self._writing.submit(self._writer.do, work)
        self._when_done(task, partial(self._written, pin, task))

    def _when_done(self, task: "Future[Read] | Future[Outcome]", answer: Callable[[], None]) -> None:
        task.add_done_callback(lambda _: self._answer(answer))

    def _answer(self, answer: Callable[[], None]) -> None:
        """Have something done in the next `poll`. From any thread."""
        self._answers.put(answer)
        self._wake()

    def _written(self, pin: Pin | None, task: "Future[Outcome]") -> None:
        outcome = task.result()
        self._spilling = False
        lost = self._holdings.apply(outcome)
        if pin is not None and self._pins.holds(pin):
            if outcome.error is None:
                pin.succeed()
            else:
                self._undo(pin)
                size_bytes = sum(save.block.file_bytes for save in outcome.work.saves)
                pin.fail(
                    _full(size_bytes) if outcome.no_room else EngineFailed(f"not saved: {outcome.error}")
                )
        if isinstance(outcome.error, Rejected) and outcome.rejected is not None:
            self._reject(outcome.rejected, outcome.error.reason)
        for block in lost:
            if block.alive:
                self._lose(block)
        for save in outcome.work.saves:
            if save.block in self._released and not save.block.writes:
                self._released.discard(save.block)
                self._prune(save.block)

    def _read(self, fetch: Fetch, index: int, block: Block, task: "Future[Read]") -> None:
        block.reads -= 1
        if block.alive:
            self._holdings.refresh(block)
        if task.cancelled():
            return
        found = task.result()
        if found.payload is not None:
            self._rates["disk"].measured(found.payload.nbytes, found.seconds)
        elif found.rejection is not None:
            self._reject(block, found.rejection)
        fetch.fill(index, found.payload, "disk")
        if fetch.done() and not fetch.cancelled and not self._closing:
            self._promote(fetch)

    def _reject(self, block: Block, reason: Rejection) -> None:
        if block.alive:
            _log.warning("kv block rejected key=%s reason=%s", block.key, reason)
            self._on_rejected(reason)
            self._lose(block)

    def _promote(self, fetch: Fetch) -> None:
        """Copy into RAM what was read from disk, as much of it as RAM can take without going round."""
        size_bytes = 0
        for index, stored in enumerate(fetch.blocks):
            block, payload = self._find(stored), fetch.payload(index)
            if block is None or payload is None or block.readable_at_once:
                continue
            size_bytes += block.size_bytes
            if size_bytes > self._promotable_bytes:
                return
            task = self._readers.submit(reading.copy, payload)
            self._when_done(task, partial(self._promoted, block, task))

    def _promoted(self, block: Block, task: "Future[Read]") -> None:
        if task.cancelled():
            return
        copied = task.result()
        assert copied.payload is not None
        self._rates["ram"].measured(block.size_bytes, copied.seconds)
        if block.alive and not block.readable_at_once:
            self._holdings.hold(block, copied.payload)


def make_policy(name: str) -> Policy:
    """By its name in the configuration."""
    return {"lru": Lru}[name]()


def _describe(shared: Shared) -> Stored:
    block = shared.block
    tier = "ram" if block.readable_at_once else "disk"
    return Stored(block.key, block.start, block.end, shared.used, block.size_bytes, tier)


def _full(size_bytes: int) -> StorageFull:
    return StorageFull(
        f"no room on disk to keep {size_bytes / 1e6:.1f} MB of KV state:"
        " delete caches or free space in the data directory"
    )
