"""The store: KV bytes of token blocks in a prefix tree per scope, in RAM and on disk.

Everything here runs on one thread, the engine's decode thread, and returns at once. File work is done by
one writer and two readers, which hand their results over to `poll`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mooring.config import KvStoreConfig
from mooring.core.prefix import TOKEN_BYTES
from mooring.kvstore.answers import Answers
from mooring.kvstore.codec import Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.eviction import Lru, Policy
from mooring.kvstore.fetch import Fetch
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.index import Index
from mooring.kvstore.keeping import Keeping
from mooring.kvstore.match import BLOCK_TOKENS, Cut, Match, Stored
from mooring.kvstore.pins import Pins
from mooring.kvstore.reads import Reads
from mooring.kvstore.restore import restore
from mooring.kvstore.reuse import Reuse
from mooring.kvstore.space import DiskSpace
from mooring.kvstore.tree import Shared, Tree
from mooring.kvstore.writer import Work, Writer

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
        disk = DiskTier(root / "blocks", fingerprint)
        disk.remove_unfinished()
        self._index = Index(root / "index.sqlite3", fingerprint)
        self._space = DiskSpace(disk, config.disk_bytes, config.disk_reserve_bytes)
        self._tree = Tree(block_tokens)
        self._pins = Pins(self._space)
        self._holdings = Holdings(
            self._tree,
            policy or make_policy(config.policy),
            self._space,
            ram_bytes=config.ram_bytes,
            spill_bytes=max(config.ram_bytes // 4, _LEAST_SPILL_BYTES)
            if spill_bytes is None
            else spill_bytes,
        )
        self._answers = Answers(wake)
        readers, writing = threads(2, "mooring-kv-read"), threads(1, "mooring-kv-write")
        self._keeping = Keeping(
            self._tree,
            self._holdings,
            self._pins,
            Writer(disk, self._index),
            self._answers,
            writing,
            on_rejected,
        )
        self._reads = Reads(
            self._tree, self._holdings, disk, self._answers, readers, self._keeping.reject
        )
        self._restore(disk)

    def _restore(self, disk: DiskTier) -> None:
        useless = restore(self._index.found, disk.keys(), self._tree, self._holdings, self._pins)
        self._index.forget_found()
        self._holdings.make_disk_room(0)
        self._keeping.submit(Work(removed=useless.keys, unpinned=useless.prefix_ids))

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
                    self._keeping.lose(tail)
        else:
            self._holdings.use(block)
        if block.alive:
            self._tree.remember(scope, tokens[: cut.end * TOKEN_BYTES], block)

    def touch(self, blocks: Sequence[Stored]) -> None:
        """These were used, and the path to them, without being fetched: they were resident."""
        held = [block for stored in blocks if (block := self._tree.find(stored)) is not None]
        if held:
            first = held[0].parent
            before = [] if first is None else self._tree.path(first)
            for block in reversed([*before, *held]):
                self._holdings.use(block)

    # Reading

    def fetch(self, blocks: Sequence[Stored]) -> Fetch:
        """Begin to read: what is in RAM is there at once, files are mapped and verified by a reader."""
        self.touch(blocks)
        return self._reads.fetch(blocks)

    def seconds_to_read(self, blocks: Sequence[Stored]) -> float:
        """By what reading from each tier took lately."""
        return self._reads.seconds_for(blocks)

    # Keeping

    def pin(self, prefix_id: str, scope: str, tokens: bytes) -> "Future[None]":
        """Keep a held path on disk until it is released; the future completes when it is durable.

        It fails with StorageFull when the disk cannot hold it, and with EngineFailed when a block of it
        is not held, or it is released meanwhile.
        """
        path = self._tree.cover(scope, tokens)
        whole = bool(path) and path[-1].end * TOKEN_BYTES >= len(tokens)
        return self._keeping.pin(prefix_id, path if whole else [])

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
        self._keeping.release([prefix_id])

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._keeping.release(set(self._pins.ids()).difference(prefix_ids))

    def room_for(self, size_bytes: int) -> bool:
        """Whether so many more pinned bytes fit, if everything automatic makes way."""
        return self._space.room_for_pinned_bytes() >= size_bytes

    # The thread's turn

    def poll(self) -> None:
        """Apply what the I/O threads have done; give them what came up since."""
        self._answers.apply()
        self._holdings.shrink_ram()
        self._keeping.poll()

    def close(self) -> None:
        """Finish the writes that were begun; nothing may be called afterwards."""
        self._reads.close()
        self._keeping.close()
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


def make_policy(name: str) -> Policy:
    """By its name in the configuration."""
    policies: dict[str, type[Lru] | type[Reuse]] = {"lru": Lru, "reuse": Reuse}
    return policies[name]()


def _describe(shared: Shared) -> Stored:
    block = shared.block
    tier = "ram" if block.readable_at_once else "disk"
    return Stored(block.key, block.start, block.end, shared.used, block.size_bytes, tier)
