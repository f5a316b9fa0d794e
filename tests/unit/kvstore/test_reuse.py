"""The default policy: uses buy time."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from mooring.kvstore.block import Block
from mooring.kvstore.eviction import Pool
from mooring.kvstore.reuse import Reuse

HELD = 4000


def block(name):
    return Block(hashlib.md5(name.encode()).digest(), None, b"", 1)


def use(policy, *used):
    for each in used:
        policy.used(each)


def pass_time(policy, uses):
    clock = block("clock")
    for _ in range(uses):
        policy.used(clock)


def test_reuse_lets_a_block_used_once_go_before_an_older_one_used_twice():
    policy = Reuse()
    twice, once = block("twice"), block("once")
    use(policy, twice, twice, once)
    pass_time(policy, HELD)
    assert policy.worth(once, HELD) < policy.worth(twice, HELD)


def test_reuse_lets_the_older_of_two_go():
    policy = Reuse()
    older, newer = block("older"), block("newer")
    use(policy, older, newer)
    pass_time(policy, HELD)
    assert policy.worth(older, HELD) < policy.worth(newer, HELD)


def test_reuse_lets_go_of_what_was_used_often_when_it_is_old_enough():
    policy = Reuse()
    often, once = block("often"), block("once")
    use(policy, *[often] * 9)
    pass_time(policy, 5 * HELD)
    use(policy, once)
    pass_time(policy, HELD)
    assert policy.worth(often, HELD) < policy.worth(once, HELD)


def test_reuse_does_not_let_go_of_what_has_just_come():
    policy = Reuse()
    often, new = block("often"), block("new")
    use(policy, *[often] * 9)
    pass_time(policy, HELD)
    use(policy, new)
    assert policy.worth(new, HELD) > policy.worth(often, HELD)


def test_reuse_remembers_the_uses_of_what_was_gone():
    policy = Reuse()
    use(policy, block("back"))
    back, once = block("back"), block("once")
    use(policy, back, once)
    assert back.uses == 2
    assert back.kind > once.kind


def test_reuse_ranks_restored_blocks_as_before():
    policy = Reuse()
    often, later, once = block("often"), block("later"), block("once")
    often.uses, later.uses, once.uses = 5, 5, 1
    for each in (often, later, once):
        policy.restored(each)
    pass_time(policy, HELD)
    assert policy.worth(once, HELD) < policy.worth(often, HELD) < policy.worth(later, HELD)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["use", "offer", "withdraw"]), st.integers(0, 7)), max_size=99
)


@given(ACTIONS, st.integers(1, 20))
def test_reuse_in_a_pool_finds_what_a_search_would_find(actions, held):
    policy = Reuse()
    pool = Pool(policy, 1)
    made, offered = [block(str(number)) for number in range(8)], set()
    use(policy, *made)
    for action, number in actions:
        each = made[number]
        if action == "use":
            policy.used(each)
            if each in pool:
                pool.offer(each)
        elif action == "offer":
            pool.offer(each)
            offered.add(each)
        else:
            pool.withdraw(each)
            offered.discard(each)
        pool.check(offered)
        assert pool.worst(held) is min(offered, key=lambda e: policy.worth(e, held), default=None)
