"""A block of tokens in the prefix tree, and what is known of its copies. Touched by one thread only."""

from enum import IntEnum
from hashlib import blake2b

from mooring.core.prefix import TOKEN_BYTES
from mooring.kvstore.codec import PAYLOAD_START

KEY_BYTES = 16


class OnDisk(IntEnum):
    """What the disk holds of a block."""

    NO = 0
    WRITTEN = 1
    """A file and its row; a power cut may still take them."""
    DURABLE = 2
    """Synced: it is there after a power cut."""


class Block:
    """Tokens [start, end) of every path that runs through it.

    The root of a scope is a block without tokens. Partial blocks never have children.
    """

    __slots__ = (
        "alive",
        "children",
        "digest",
        "disk_children",
        "in_ram",
        "kind",
        "label",
        "leaving",
        "offered",
        "on_disk",
        "parent",
        "pins",
        "reads",
        "size_bytes",
        "start",
        "used_at",
        "uses",
        "writes",
    )

    def __init__(self, digest: bytes, parent: "Block | None", label: bytes, size_bytes: int) -> None:
        self.digest = digest
        self.parent = parent
        self.label = label
        """Its tokens, packed."""
        self.size_bytes = size_bytes
        """Of its payload."""
        self.start: int = 0 if parent is None else parent.end
        self.children: list[Block] | tuple[()] = ()
        """Sorted by label, so that neighbours share most."""
        self.alive = True
        """In the tree."""
        self.in_ram = False
        self.leaving = False
        """On its way from RAM to disk: out of the RAM budget, and still readable at once."""
        self.on_disk = OnDisk.NO
        self.disk_children = 0
        """Children that are on disk: what is on disk has all of its ancestors there."""
        self.pins = 0
        """Pins whose path runs through it."""
        self.reads = 0
        self.writes = 0
        """Under way, so that its file must stay."""
        self.used_at = 0
        self.uses = 0
        self.kind = 0
        """These three are the policy's."""
        self.offered = 0
        """Bits of the pools that may evict it."""

    @property
    def key(self) -> str:
        return self.digest.hex()

    @property
    def end(self) -> int:
        return self.start + len(self.label) // TOKEN_BYTES

    @property
    def file_bytes(self) -> int:
        return PAYLOAD_START + self.size_bytes

    @property
    def is_root(self) -> bool:
        return self.parent is None

    @property
    def readable_at_once(self) -> bool:
        return self.in_ram or self.leaving

    @property
    def may_leave_ram(self) -> bool:
        """The copy can go: there is another, or the block itself can."""
        return self.in_ram and not self.writes and (bool(self.on_disk) or not self.children)

    @property
    def may_leave_disk(self) -> bool:
        """Likewise, and nothing on disk is below it."""
        if not self.on_disk or self.pins or self.writes or self.reads or self.disk_children:
            return False
        return self.in_ram or not self.children


def root_digest(scope: str) -> bytes:
    return blake2b(scope.encode(), digest_size=KEY_BYTES, person=b"mooring scope").digest()


def child_digest(parent: bytes, label: bytes) -> bytes:
    """Equal content in one scope has one key, in another scope another one."""
    return blake2b(parent + label, digest_size=KEY_BYTES, person=b"mooring block").digest()
