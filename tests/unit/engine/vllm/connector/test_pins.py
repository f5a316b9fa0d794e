"""The pins' budget and leases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.vllm.connector.pins import Pins, reserved_blocks

CONTEXTS = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("max_model_len", "block_tokens", "blocks"),
    [(2048, 32, 65), (2049, 32, 66), (1, 16, 2), (131072, 16, 8193)],
)
def test_reserve_is_the_longest_request_and_one_block(max_model_len, block_tokens, blocks):
    assert reserved_blocks(max_model_len, block_tokens) == blocks


def test_budget_is_never_negative():
    assert Pins(-5).budget_blocks == 0


def test_pin_fits_up_to_the_last_block():
    pins = Pins(5)
    pins.add("a", 96, [1, 2, 3], expires_at=10)
    assert pins.fits([4, 5])
    assert not pins.fits([4, 5, 6])


def test_shared_blocks_count_once():
    pins = Pins(4)
    pins.add("a", 96, [1, 2, 3], expires_at=10)
    assert pins.fits([1, 2, 3, 4])
    pins.add("b", 128, [1, 2, 3, 4], expires_at=10)
    assert pins.used_blocks == 4
    assert pins.remove("a") == (1, 2, 3)
    assert pins.used_blocks == 4
    assert pins.remove("b") == (1, 2, 3, 4)
    assert pins.used_blocks == 0


def test_removing_what_is_not_pinned_gives_no_blocks():
    assert Pins(4).remove("a") == ()


def test_lease_ends_when_its_time_comes():
    pins = Pins(9)
    pins.add("a", 32, [1], expires_at=10)
    pins.add("b", 32, [2], expires_at=20)
    assert pins.expired(9.9) == []
    assert pins.expired(10) == ["a"]
    pins.remove("a")
    assert pins.expired(15) == []
    assert pins.expired(25) == ["b"]


def test_lease_is_renewed_and_never_shortened():
    pins = Pins(9)
    pins.add("a", 32, [1], expires_at=10)
    pins.renew("a", 30)
    pins.renew("a", 5)
    assert pins.expired(29) == []
    assert pins.expired(30) == ["a"]


def test_renewing_what_is_not_pinned_pins_nothing():
    pins = Pins(9)
    pins.renew("a", 30)
    assert pins.tokens() == {}


def test_others_are_those_not_named():
    pins = Pins(9)
    for number, context in enumerate(CONTEXTS):
        pins.add(context, 32, [number], expires_at=10)
    assert pins.others(["b", "x"]) == ["a", "c", "d"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "renew", "expire"]),
        st.sampled_from(CONTEXTS),
        st.lists(st.integers(0, 8), min_size=1, unique=True),
        st.integers(0, 20),
    )
)


@given(st.integers(0, 9), steps)
def test_accounts_are_right_after_any_steps(budget, steps):
    pins, model, now = Pins(budget), {}, 0
    for what, context, blocks, time in steps:
        match what:
            case "add" if context not in model:
                fits = len(set(blocks).union(*(held for held, _ in model.values()))) <= budget
                assert pins.fits(blocks) is fits
                if fits:
                    pins.add(context, 32, blocks, time)
                    model[context] = (blocks, time)
            case "remove":
                assert pins.remove(context) == tuple(model.pop(context, ([], 0))[0])
            case "renew" if context in model:
                pins.renew(context, time)
                model[context] = (model[context][0], max(time, model[context][1]))
            case "expire":
                now = max(now, time)
                gone = pins.expired(now)
                assert sorted(gone) == sorted(c for c, (_, end) in model.items() if end <= now)
                for one in gone:
                    pins.remove(one)
                    del model[one]
        pins.check()
    assert pins.tokens().keys() == model.keys()
