"""The prefix tree: what of a path is held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.prefix import pack
from mooring.kvstore.match import Cut
from mooring.kvstore.tree import Tree

STEP = 4
PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3 * STEP), max_size=12)


def grow(tree, tokens, scope="tenant"):
    """Insert what is missing of a path."""
    packed = pack(tuple(tokens))
    for cut in tree.missing(scope, packed):
        label = packed[4 * cut.start : 4 * cut.end]
        tree.insert(tree.parent_for(scope, packed, cut.start), label, 100)
    return packed


def tree_of(*paths, step=STEP):
    tree = Tree(step)
    for path in paths:
        grow(tree, path)
    return tree


def used(tree, tokens, scope="tenant"):
    """The number of tokens matched, and in how many blocks."""
    found = tree.match(scope, pack(tuple(tokens)))
    return (found[-1].used if found else 0), len(found)


def common(a, b):
    shared = 0
    while shared < min(len(a), len(b)) and a[shared] == b[shared]:
        shared += 1
    return shared


@given(PATHS, st.lists(st.integers(0, 2), max_size=4 * STEP))
def test_tree_matches_as_much_as_any_path_shares(paths, tokens):
    tree = tree_of(*paths)
    tree.check()
    assert used(tree, tokens)[0] == max((common(path, tokens) for path in paths), default=0)


@given(PATHS, st.lists(st.integers(0, 2), max_size=4 * STEP))
def test_tree_that_cannot_be_cut_matches_the_longest_whole_path(paths, tokens):
    tree = tree_of(*paths, step=None)
    tree.check()
    whole = [len(path) for path in paths if path == tokens[: len(path)]]
    assert used(tree, tokens)[0] == max(whole, default=0)


@given(PATHS)
def test_tree_misses_nothing_of_what_was_grown(paths):
    tree = tree_of(*paths)
    for path in paths:
        assert tree.missing("tenant", pack(tuple(path))) == []
        assert tree.cover("tenant", pack(tuple(path)))[-1].end >= len(path)


@given(PATHS)
def test_tree_is_empty_when_everything_was_removed(paths):
    tree = tree_of(*paths)
    while blocks := [block for block in tree if not block.children]:
        tree.remove(blocks[0])
        tree.check()
    assert len(tree) == 0
    assert used(tree, [0, 1, 2]) == (0, 0)


@pytest.mark.parametrize(
    ("tokens", "cuts"),
    [(0, []), (3, [(0, 3)]), (4, [(0, 4)]), (9, [(0, 4), (4, 8), (8, 9)])],
)
def test_tree_cuts_a_path_into_full_blocks_and_a_tail(tokens, cuts):
    assert Tree(STEP).cuts(pack((1,) * tokens)) == [Cut(*cut) for cut in cuts]


def test_tree_that_cannot_be_cut_keeps_a_path_in_one_block():
    assert Tree(None).cuts(pack((1,) * 9)) == [Cut(0, 9)]


def test_tree_uses_the_last_block_in_part():
    assert used(tree_of([1, 2, 3, 4, 5, 6, 7, 8]), [1, 2, 3, 4, 5, 6, 9]) == (6, 2)


def test_tree_uses_a_tail_in_part():
    assert used(tree_of([1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 9]) == (5, 2)


def test_tree_goes_on_below_full_blocks_only_when_all_of_them_matches():
    assert used(tree_of([1, 2, 3, 4, 5, 6]), [1, 2, 3, 9, 5, 6]) == (3, 1)


def test_tree_chooses_the_child_that_shares_most():
    tree = tree_of([1, 2, 3, 4, 5, 5, 5, 5], [1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 7])
    assert used(tree, [1, 2, 3, 4, 5, 6, 2, 2]) == (6, 2)


def test_tree_that_cannot_be_cut_looks_past_a_path_that_only_begins_alike():
    tree = tree_of([1, 2], [1, 2, 3, 1], [1, 2, 3, 1, 1], step=None)
    assert used(tree, [1, 2, 3, 4]) == (2, 1)


def test_tree_keeps_scopes_apart():
    tree = tree_of([1, 2, 3, 4])
    assert used(tree, [1, 2, 3, 4], scope="another tenant") == (0, 0)
    grow(tree, [1, 2, 3, 4], "another tenant")
    assert len({block.key for block in tree}) == 2


def test_tree_gives_equal_content_the_same_key_in_every_process():
    """Files are found by it, so it may never change between releases."""
    (block,) = tree_of([1, 2, 3, 4])
    assert block.key == "ef28870f077c87b514045d6643b92f32"


def test_tree_does_not_miss_a_tail_that_a_longer_block_covers():
    tree = tree_of([1, 2, 3, 4, 5, 6, 7, 8])
    assert tree.missing("tenant", pack((1, 2, 3, 4, 5, 6))) == []


def test_tree_misses_a_tail_that_a_block_covers_in_part_only():
    tree = tree_of([1, 2, 3, 4, 5, 6])
    assert tree.missing("tenant", pack((1, 2, 3, 4, 5, 6, 7))) == [Cut(4, 7)]


def test_tree_knows_the_tails_that_a_longer_block_makes_useless():
    tree = Tree(STEP)
    packed = pack((1, 2, 3, 4))
    root = tree.parent_for("tenant", packed, 0)
    tails = [tree.insert(root, packed[: 4 * length], 1) for length in (1, 3)]
    tree.insert(root, pack((1, 3)), 1)
    assert tree.tails_within(root, packed) == tails[::-1]


def test_tree_has_no_parent_for_a_block_whose_beginning_is_gone():
    tree = tree_of([1, 2, 3, 4, 5, 6, 7, 8])
    packed = pack((1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert tree.parent_for("tenant", packed, 8) is not None
    tree.remove(next(block for block in tree if block.start == 4))
    assert tree.parent_for("tenant", packed, 8) is None
    assert tree.parent_for("another tenant", packed, 4) is None


def test_tree_does_not_take_the_last_inserted_block_for_the_parent_in_another_scope():
    tree = Tree(STEP)
    packed = pack((1, 2, 3, 4, 5))
    block = tree.insert(tree.parent_for("tenant", packed, 0), packed[:16], 1)
    tree.remember("tenant", packed[:16], block)
    assert tree.parent_for("tenant", packed, 4) is block
    assert tree.parent_for("another tenant", packed, 4) is None
    assert tree.parent_for("tenant", pack((1, 2, 3, 9, 5)), 4) is None
    tree.remove(block)
    assert tree.parent_for("tenant", packed, 4) is None


def test_tree_lists_what_is_below_a_block_children_first():
    tree = tree_of([1] * 8 + [2], [1] * 8 + [3])
    first = next(block for block in tree if block.start == 0)
    below = tree.below(first)
    assert below[-1] is first
    assert [block.start for block in below] == [8, 8, 4, 0]
