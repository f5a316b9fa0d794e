"""The prefix tree: which blocks are held, and how much of a path they cover. Knows no tiers.

A path of n tokens is n // B full blocks and, if n % B, a partial one, the tail. Where `block_tokens` is
None (models whose sequences cannot be cut), a path is one block and is of use only as a whole.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from mooring.core.prefix import TOKEN_BYTES, common_tokens
from mooring.kvstore.block import Block, child_digest, root_digest
from mooring.kvstore.match import Cut, Stored

_label = attrgetter("label")


@dataclass(frozen=True)
class Shared:
    """A block of the tree, and up to which position it equals what was asked for."""

    block: Block
    used: int


class Tree:
    """Blocks by path and by key, one root for each scope that has any."""

    def __init__(self, block_tokens: int | None) -> None:
        self._block_bytes = None if block_tokens is None else block_tokens * TOKEN_BYTES
        self._roots: dict[bytes, Block] = {}
        self._blocks: dict[bytes, Block] = {}
        self._last: tuple[str, Block, bytes] | None = None
        """Scope, block and path of the last insertion: the next one is mostly its child."""

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def get(self, digest: bytes) -> Block | None:
        return self._blocks.get(digest)

    def find(self, stored: Stored) -> Block | None:
        """The block that was described, unless it has left meanwhile."""
        return self._blocks.get(bytes.fromhex(stored.key))

    def match(self, scope: str, tokens: bytes) -> list[Shared]:
        """The longest held prefix; only the last block may be used in part."""
        node = self._roots.get(root_digest(scope))
        if node is None:
            return []
        if self._block_bytes is None:
            whole = _longest_beginning(node, tokens)
            return [] if whole is None else [Shared(whole, whole.end)]
        path, node, position = self._descend(node, tokens)
        found = [Shared(block, block.end) for block in path]
        rest = tokens[position : position + self._block_bytes]
        if rest and (last := _closest(node, rest)) is not None:
            found.append(last)
        return found

    def cuts(self, tokens: bytes) -> list[Cut]:
        """How a path is divided into blocks."""
        end = len(tokens) // TOKEN_BYTES
        step = end if self._block_bytes is None else self._block_bytes // TOKEN_BYTES
        return [Cut(start, min(start + step, end)) for start in range(0, end, step or 1)]

    def cover(self, scope: str, tokens: bytes) -> list[Block]:
        """The blocks that hold the path, as far as they are held whole, the first one first."""
        node = self._roots.get(root_digest(scope))
        if node is None:
            return []
        if self._block_bytes is None:
            exact = _covering(node, tokens, exact=True)
            return [] if exact is None else [exact]
        path, node, position = self._descend(node, tokens)
        rest = tokens[position:]
        if 0 < len(rest) < self._block_bytes and (tail := _covering(node, rest)) is not None:
            path.append(tail)
        return path

    def missing(self, scope: str, tokens: bytes) -> list[Cut]:
        return self.cuts(tokens)[len(self.cover(scope, tokens)) :]

    def parent_for(self, scope: str, tokens: bytes, start: int) -> Block | None:
        """The block that ends at `start` on this path, for 0 the root; None when it is not held."""
        if start == 0:
            digest = root_digest(scope)
            return self._roots.setdefault(digest, Block(digest, None, b"", 0))
        position = start * TOKEN_BYTES
        if self._last is not None:
            last_scope, block, path = self._last
            fits = last_scope == scope and len(path) == position and block.alive
            if fits and tokens.startswith(path):
                return block
        if (root := self._roots.get(root_digest(scope))) is None:
            return None
        _, node, reached = self._descend(root, tokens[:position])
        return node if reached == position else None

    def insert(self, parent: Block, label: bytes, size_bytes: int) -> Block:
        """A new child; the parent is in the tree and is no tail."""
        block = Block(child_digest(parent.digest, label), parent, label, size_bytes)
        assert block.digest not in self._blocks
        if not isinstance(parent.children, list):
            parent.children = []
        parent.children.insert(bisect_left(parent.children, label, key=_label), block)
        self._blocks[block.digest] = block
        return block

    def root(self, digest: bytes) -> Block:
        """The root with this key, for blocks that a former process stored."""
        return self._roots.setdefault(digest, Block(digest, None, b"", 0))

    def may_have(self, parent: Block, label: bytes) -> bool:
        """Whether so many tokens can stand there: nothing stands below a partial block."""
        if self._block_bytes is None:
            return parent.is_root
        return len(label) <= self._block_bytes and (
            parent.is_root or len(parent.label) == self._block_bytes
        )

    def path(self, block: Block) -> list[Block]:
        """From the root's child to the block itself."""
        found = []
        node: Block | None = block
        while node is not None and not node.is_root:
            found.append(node)
            node = node.parent
        return found[::-1]

    def below(self, block: Block) -> list[Block]:
        """The block and everything under it, children before their parents."""
        found = [block]
        for node in found:
            found.extend(node.children)
        return found[::-1]

    def remember(self, scope: str, path: bytes, block: Block) -> None:
        """`path` leads to `block`, whose child is likely to be the next to come."""
        self._last = (scope, block, path)

    def child(self, parent: Block, label: bytes) -> Block | None:
        """The child that holds the label, itself or at the beginning of a longer one."""
        return _covering(parent, label, exact=self._block_bytes is None)

    def tails_within(self, parent: Block, label: bytes) -> list[Block]:
        """Children whose tokens are all at the beginning of `label`, which makes them useless."""
        if self._block_bytes is None:
            return []
        found = []
        rest = label[:-TOKEN_BYTES]
        while (tail := _longest_beginning(parent, rest)) is not None:
            found.append(tail)
            rest = tail.label[:-TOKEN_BYTES]
        return found

    def remove(self, block: Block) -> None:
        """Take out a block without children."""
        assert block.alive
        assert not block.children
        assert block.parent is not None
        siblings = block.parent.children
        assert isinstance(siblings, list)
        at = bisect_left(siblings, block.label, key=_label)
        assert siblings[at] is block
        del siblings[at], self._blocks[block.digest]
        block.alive = False
        if not siblings:
            block.parent.children = ()
            if block.parent.is_root:
                self._roots.pop(block.parent.digest, None)

    def check(self) -> None:
        """Assert what must hold after every call."""
        seen = 0
        for digest, root in self._roots.items():
            assert root.is_root
            assert root.digest == digest
        for digest, block in self._blocks.items():
            parent = block.parent
            assert parent is not None
            assert block.alive
            assert block.digest == digest == child_digest(parent.digest, block.label)
            assert block.start == parent.end
            assert block in parent.children
            assert parent is (self._roots if parent.is_root else self._blocks)[parent.digest]
            assert len(block.label) > 0
            assert len(block.label) % TOKEN_BYTES == 0
            if self._block_bytes is not None:
                assert len(block.label) <= self._block_bytes
            assert not block.children or len(block.label) == self._block_bytes
        for parent in (*self._roots.values(), *self._blocks.values()):
            labels = [child.label for child in parent.children]
            assert labels == sorted(set(labels))
            seen += len(labels)
        assert seen == len(self._blocks)

    def _descend(self, node: Block, tokens: bytes) -> tuple[list[Block], Block, int]:
        """Along full blocks: those passed, the last of them, and the position in bytes reached."""
        assert self._block_bytes is not None
        step, path, position = self._block_bytes, [], 0
        while position + step <= len(tokens):
            label = tokens[position : position + step]
            at = bisect_left(node.children, label, key=_label)
            if at == len(node.children) or node.children[at].label != label:
                break
            node = node.children[at]
            path.append(node)
            position += step
        return path, node, position


def _closest(parent: Block, rest: bytes) -> Shared | None:
    """The child that shares most tokens with `rest`: one of the two between which it would stand."""
    at = bisect_left(parent.children, rest, key=_label)
    best: Shared | None = None
    for child in parent.children[max(at - 1, 0) : at + 1]:
        used = child.start + common_tokens(child.label, rest)
        if used > (child.start if best is None else best.used):
            best = Shared(child, used)
    return best


def _covering(parent: Block, label: bytes, *, exact: bool = False) -> Block | None:
    """The child whose label is `label` or, unless `exact`, begins with it."""
    at = bisect_left(parent.children, label, key=_label)
    if at == len(parent.children):
        return None
    child = parent.children[at]
    found = child.label == label if exact else child.label.startswith(label)
    return child if found else None


def _longest_beginning(parent: Block, tokens: bytes) -> Block | None:
    """The longest child whose tokens are all at the beginning of `tokens`.

    Such children stand before `tokens` in the order of labels, and so does every label that only agrees
    with it for a while. Each of the latter tells how far agreement reaches; look again up to there.
    """
    while tokens:
        at = bisect_left(parent.children, tokens, key=_label)
        if at < len(parent.children) and parent.children[at].label == tokens:
            return parent.children[at]
        if at == 0:
            return None
        before = parent.children[at - 1]
        shared = common_tokens(before.label, tokens) * TOKEN_BYTES
        if shared == len(before.label):
            return before
        tokens = tokens[:shared]
    return None
