"""Pools: of what may go, what is worth least."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.kvstore.block import Block
from mooring.kvstore.eviction import Lru, Pool


def blocks(policy, count):
    made = [Block(bytes([number]) * 16, None, b"", 1) for number in range(count)]
    for block in made:
        policy.used(block)
    return made


def test_lru_lets_the_one_go_that_was_not_used_for_longest():
    policy = Lru()
    pool = Pool(policy, 1)
    first, second, third = blocks(policy, 3)
    for block in (third, first, second):
        pool.offer(block)
    assert pool.worst(6) is first
    policy.used(first)
    pool.offer(first)
    assert pool.worst(6) is second
    pool.withdraw(second)
    assert pool.worst(6) is third


def test_pool_without_blocks_has_none_to_let_go():
    assert Pool(Lru(), 1).worst(6) is None


def test_pools_do_not_see_what_the_other_holds():
    policy = Lru()
    ram, disk = Pool(policy, 1), Pool(policy, 2)
    first, second = blocks(policy, 2)
    ram.offer(first)
    disk.offer(second)
    assert (ram.worst(6), disk.worst(6)) == (first, second)
    disk.withdraw(first)
    assert first in ram


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["use", "offer", "withdraw"]), st.integers(0, 5)), max_size=80
)


@given(ACTIONS)
def test_pool_finds_what_a_search_would_find(actions):
    policy = Lru()
    pool = Pool(policy, 1)
    made, offered = blocks(policy, 6), set()
    for action, number in actions:
        block = made[number]
        if action == "use":
            policy.used(block)
            if block in pool:
                pool.offer(block)
        elif action == "offer":
            pool.offer(block)
            offered.add(block)
        else:
            pool.withdraw(block)
            offered.discard(block)
        pool.check(offered)
        assert pool.worst(6) is min(offered, key=lambda each: policy.worth(each, 6), default=None)


def test_pool_does_not_grow_with_uses():
    policy = Lru()
    pool = Pool(policy, 1)
    (block,) = blocks(policy, 1)
    for _ in range(10_000):
        policy.used(block)
        pool.offer(block)
    assert sum(map(len, pool._heaps)) < 2000
    assert pool.worst(6) is block
