"""From what a former process left on disk to a tree that stands, without reading block files."""

import logging
from dataclasses import dataclass, field

from mooring.kvstore.block import KEY_BYTES, Block, OnDisk, child_digest
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.index import Contents, Row
from mooring.kvstore.pins import Pin, Pins
from mooring.kvstore.tree import Tree

_log = logging.getLogger("mooring.kvstore")


@dataclass
class Leftovers:
    """What is of no use: a crash came between file and row, or the index was damaged."""

    keys: list[bytes] = field(default_factory=list)
    prefix_ids: list[str] = field(default_factory=list)


def restore(
    contents: Contents, files: set[str], tree: Tree, holdings: Holdings, pins: Pins
) -> Leftovers:
    """Fill the tree from the index, as far as there are files."""
    leftovers = Leftovers()
    rows: list[tuple[Row, Block]] = []
    for row in contents.rows:
        block = _insert(row, tree) if _is_whole(row) and row.key.hex() in files else None
        if block is None:
            leftovers.keys.append(row.key)
        else:
            files.discard(row.key.hex())
            rows.append((row, block))
    pinned = _find_pins(contents, tree, leftovers)
    durable = {block for pin in pinned for block in pin.path}
    for row, block in sorted(rows, key=lambda found: found[0].last_used):
        block.used_at, block.uses = row.last_used, row.uses
        holdings.restore(block, OnDisk.DURABLE if block in durable else OnDisk.WRITTEN)
    for pin in pinned:
        pins.add(pin)
        for block in pin.path:
            holdings.refresh(block)
    named = [key for name in files if (key := _key(name)) is not None]
    if leftovers.keys or named or leftovers.prefix_ids:
        _log.info(
            "kv leftovers dropped rows=%d files=%d pins=%d",
            len(leftovers.keys),
            len(named),
            len(leftovers.prefix_ids),
        )
    leftovers.keys += named
    return leftovers


def _is_whole(row: Row) -> bool:
    """A key vouches for its parent and its tokens; the rest can be checked for sense only."""
    numbers = (row.start, row.size_bytes, row.last_used, row.uses)
    if not all(isinstance(value, bytes) for value in (row.key, row.parent, row.label)):
        return False
    if not all(isinstance(value, int) and value >= 0 for value in numbers):
        return False
    return bool(row.label) and row.key == child_digest(row.parent, row.label)


def _insert(row: Row, tree: Tree) -> Block | None:
    parent = tree.root(row.parent) if row.start == 0 else tree.get(row.parent)
    if parent is None or parent.end != row.start or not tree.may_have(parent, row.label):
        return None
    return tree.insert(parent, row.label, row.size_bytes)


def _find_pins(contents: Contents, tree: Tree, leftovers: Leftovers) -> list[Pin]:
    found = []
    for pinned in contents.pins:
        if (block := tree.get(pinned.key)) is None:
            leftovers.prefix_ids.append(pinned.prefix_id)
        else:
            found.append(Pin(pinned.prefix_id, tree.path(block), committed=True))
    return found


def _key(name: str) -> bytes | None:
    """The key of a file's name; None for somebody else's file, which is left alone."""
    try:
        key = bytes.fromhex(name)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None
