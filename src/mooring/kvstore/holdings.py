"""Which tier holds which block, within the budgets: who must make way, and where to.

Always so, between two calls:
    a block of the tree is in RAM, on its way from RAM to disk, or on disk
    what is on disk has all of its ancestors on disk
    a block loses its last copy only when it has no children
Decides only: files are changed by the writer, which is handed `take_work()`.
"""

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.block import Block, OnDisk
from mooring.kvstore.eviction import Policy, Pool
from mooring.kvstore.index import Row
from mooring.kvstore.ram import RamTier
from mooring.kvstore.space import DiskSpace
from mooring.kvstore.tree import Tree
from mooring.kvstore.writer import Outcome, Save, Work

_log = logging.getLogger("mooring.kvstore")


class Holdings:
    """The tree's blocks in RAM and on disk."""

    def __init__(
        self, tree: Tree, policy: Policy, space: DiskSpace, *, ram_bytes: int, spill_bytes: int
    ) -> None:
        """At most `spill_bytes` wait, outside the RAM budget, to be written to disk."""
        self._tree = tree
        self._policy = policy
        self._space = space
        self._ram_budget = ram_bytes
        self._spill_budget = spill_bytes
        self._ram = RamTier()
        self._leaving = RamTier()
        self._ram_pool = Pool(policy, 1)
        self._disk_pool = Pool(policy, 2)
        self._removed: list[bytes] = []
        self._freed_bytes = 0
        self._spills: list[Block] = []
        self._on_disk = 0
        """How many blocks are."""
        self._used: set[Block] = set()
        """On disk, and used since their row was written."""

    @property
    def ram_bytes(self) -> int:
        return self._ram.used_bytes + self._leaving.used_bytes

    @property
    def ram_budget_bytes(self) -> int:
        return self._ram_budget

    def payload(self, block: Block) -> NDArray[np.uint8] | None:
        """What can be read at once."""
        held = self._ram.get(block.key)
        return self._leaving.get(block.key) if held is None else held

    def use(self, block: Block) -> None:
        """A use of the block; on a path, the deepest is told first."""
        self._policy.used(block)
        for pool in (self._ram_pool, self._disk_pool):
            if block in pool:
                pool.offer(block)
        if block.on_disk:
            self._used.add(block)

    def hold(self, block: Block, payload: NDArray[np.uint8]) -> None:
        """Take a block's bytes into RAM; others, or it itself, make way."""
        self._ram.put(block.key, payload)
        block.in_ram = True
        self.refresh(block)
        if block.parent is not None:
            self.refresh(block.parent)
        self.shrink_ram()

    def restore(self, block: Block, on_disk: OnDisk) -> None:
        """A former process wrote this block. Oldest use first."""
        self._policy.restored(block)
        self._claim_room(block)
        self._landed(block, on_disk)
        self.refresh(block)

    def shrink_ram(self) -> None:
        """Back within the budget, as far as running writes let go of what they need."""
        while self._ram.used_bytes > self._ram_budget:
            if (victim := self._ram_pool.worst(len(self._ram))) is None:
                return
            if victim.on_disk:
                self._drop_from_ram(victim)
                self.refresh(victim)
            elif not self._spill(victim):
                self.lose([victim])

    def make_disk_room(self, size_bytes: int, *, worth: float | None = None) -> bool:
        """Evict from disk what is not pinned, and worth less than `worth`, until so much fits."""
        while self._space.room_bytes() < size_bytes:
            victim = self._disk_pool.worst(self._on_disk)
            if victim is None or (
                worth is not None and self._policy.worth(victim, self._on_disk) >= worth
            ):
                return False
            self._drop_from_disk(victim)
            if victim.in_ram:
                self.refresh(victim)
            else:
                self.lose([victim])
        return True

    def claim(self, block: Block) -> None:
        """A write of this block begins; the first one takes its room."""
        if not block.on_disk and not block.writes:
            self._claim_room(block)
        block.writes += 1
        self.refresh(block)

    def save(self, block: Block) -> Save:
        """What the writer needs to know to write it."""
        assert block.parent is not None
        row = Row(
            key=block.digest,
            parent=block.parent.digest,
            start=block.start,
            label=block.label,
            size_bytes=block.size_bytes,
            last_used=block.used_at,
            uses=block.uses,
        )
        return Save(block, row, None if block.on_disk else self.payload(block))

    def take_work(self, unpinned: Sequence[str]) -> Work | None:
        """Removals and spills since the last time, with the pins that were taken back."""
        saves = []
        for block in self._spills:
            if block.alive and not block.on_disk:
                saves.append(self.save(block))
            elif block.alive:  # a pin was quicker
                block.writes -= 1
                self.refresh(block)
        self._spills.clear()
        if not (self._removed or saves or unpinned):
            return None
        work = Work(self._removed, unpinned, saves, freed_bytes=self._freed_bytes)
        self._removed, self._freed_bytes = [], 0
        return work

    def uses(self) -> list[tuple[bytes, int, int]]:
        """For the index: the uses since rows were written."""
        return [(b.digest, b.used_at, b.uses) for b in self._used if b.alive and b.on_disk]

    def apply(self, outcome: Outcome) -> list[Block]:
        """The writer has ended; returns the blocks that lost their only copy by it."""
        self._space.unlinking_bytes -= outcome.work.freed_bytes
        lost = []
        landed = OnDisk.DURABLE if outcome.work.durable and outcome.error is None else OnDisk.WRITTEN
        for save in outcome.work.saves:
            block = save.block
            block.writes -= 1
            if not block.alive:  # its file is being removed already
                continue
            assert block.parent is not None
            # Without its parent it would be of no use after a restart.
            rooted = block.parent.is_root or block.parent.on_disk
            if block.digest in outcome.saved and rooted:
                self._landed(block, max(block.on_disk, landed))
            if not block.writes and not block.on_disk:
                self._free_room(block)
                self._removed.append(block.digest)
                if not block.in_ram:
                    lost.append(block)
            self.refresh(block)
        return lost

    def lose(self, blocks: Iterable[Block]) -> None:
        """Out of all tiers and of the tree; children before their parents."""
        for block in blocks:
            parent = block.parent
            assert parent is not None
            if block.in_ram:
                self._drop_from_ram(block)
            if block.on_disk:
                self._drop_from_disk(block)
            elif block.writes:
                self._free_room(block)
                self._removed.append(block.digest)
            self._stop_leaving(block)
            for pool in (self._ram_pool, self._disk_pool):
                pool.withdraw(block)
            self._used.discard(block)
            self._tree.remove(block)
            self.refresh(parent)

    def refresh(self, block: Block) -> None:
        """Offer it to the pools that may evict it now, and to no others."""
        pools = ((self._ram_pool, block.may_leave_ram), (self._disk_pool, block.may_leave_disk))
        for pool, may_leave in pools:
            if may_leave and block not in pool:
                pool.offer(block)
            elif not may_leave:
                pool.withdraw(block)

    def check(self) -> None:
        blocks = list(self._tree)
        for block in blocks:
            assert block.in_ram or block.leaving or block.on_disk, "in some tier"
            assert not block.on_disk or block.parent.is_root or block.parent.on_disk  # type: ignore[union-attr]
            assert block.disk_children == sum(bool(child.on_disk) for child in block.children)
            assert not block.leaving or (block.writes and not block.in_ram and not block.on_disk)
            assert min(block.pins, block.reads, block.writes) >= 0
            assert not block.pins or block.on_disk or block.writes
            for tier, there in ((self._ram, block.in_ram), (self._leaving, block.leaving)):
                payload = tier.get(block.key)
                assert (payload is not None) == there
                assert payload is None or payload.nbytes == block.size_bytes
        assert self._ram.keys() == {block.key for block in blocks if block.in_ram}
        assert self._leaving.keys() == {block.key for block in blocks if block.leaving}
        assert self._ram.used_bytes <= self._ram_budget or not len(self._ram_pool)
        self._ram_pool.check(block for block in blocks if block.may_leave_ram)
        self._disk_pool.check(block for block in blocks if block.may_leave_disk)
        assert self._on_disk == sum(bool(block.on_disk) for block in blocks)
        space = self._space
        assert space.used_bytes == sum(b.file_bytes for b in blocks if b.on_disk or b.writes)
        assert space.pinned_bytes == sum(block.file_bytes for block in blocks if block.pins)
        unwritten = sum(b.file_bytes for b in blocks if b.writes and not b.on_disk)
        assert space.unwritten_bytes == unwritten
        assert space.unlinking_bytes >= 0

    def _spill(self, victim: Block) -> bool:
        """Send a block to disk, after those of its ancestors that are in RAM only."""
        if self._leaving.used_bytes + victim.size_bytes > self._spill_budget:
            return False
        chain, top = [], victim
        while not (top.is_root or top.on_disk or top.writes):
            chain.append(top)
            assert top.parent is not None
            top = top.parent
        top.reads += 1  # making room must not take the file under which the chain belongs
        self.refresh(top)
        room = self.make_disk_room(
            sum(block.file_bytes for block in chain), worth=self._policy.worth(victim, self._on_disk)
        )
        top.reads -= 1
        self.refresh(top)
        if not room:
            return False
        for block in reversed(chain):
            self.claim(block)
            self._spills.append(block)
        payload = self._ram.get(victim.key)
        assert payload is not None
        self._drop_from_ram(victim)
        victim.leaving = True
        self._leaving.put(victim.key, payload)
        self.refresh(victim)
        return True

    def _landed(self, block: Block, on_disk: OnDisk) -> None:
        assert block.parent is not None
        if not block.on_disk:
            block.parent.disk_children += 1
            self._on_disk += 1
            self._space.unwritten_bytes -= block.file_bytes
        block.on_disk = on_disk
        self._stop_leaving(block)
        self.refresh(block.parent)

    def _drop_from_ram(self, block: Block) -> None:
        self._ram.delete(block.key)
        block.in_ram = False

    def _drop_from_disk(self, block: Block) -> None:
        assert block.parent is not None
        block.on_disk = OnDisk.NO
        block.parent.disk_children -= 1
        self._on_disk -= 1
        self._space.used_bytes -= block.file_bytes
        self._space.unlinking_bytes += block.file_bytes
        self._freed_bytes += block.file_bytes
        self._removed.append(block.digest)
        self.refresh(block.parent)

    def _claim_room(self, block: Block) -> None:
        self._space.used_bytes += block.file_bytes
        self._space.unwritten_bytes += block.file_bytes

    def _free_room(self, block: Block) -> None:
        """Of a write that came to nothing."""
        self._space.used_bytes -= block.file_bytes
        self._space.unwritten_bytes -= block.file_bytes

    def _stop_leaving(self, block: Block) -> None:
        if block.leaving:
            self._leaving.delete(block.key)
            block.leaving = False
