"""Sliding windows of limits."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.service.window import Window

MINUTE = 60.0


def test_what_was_used_is_used_up_until_it_slides_out():
    window = Window(MINUTE)
    assert window.take(10, 10, now=600)
    assert not window.take(1, 10, now=600)
    assert not window.take(1, 10, now=659)
    assert window.used(660) == 10
    assert window.used(690) == 5, "half of the span before is left"
    assert window.take(5, 10, now=690)
    assert not window.take(1, 10, now=690)
    assert window.used(780) == 0, "a whole span was left out"


def test_what_is_added_fills_a_window_and_never_more():
    window = Window(MINUTE)
    window.add(7, 10, now=600)
    window.add(7, 10, now=600)
    assert window.used(600) == 10
    window.add(7, 5, now=600)  # the limit was lowered
    assert window.used(600) == 10


def test_a_window_is_as_new_when_two_spans_have_gone_by_at_the_latest():
    window = Window(MINUTE)
    assert window.reset_s(600) == 0
    window.take(1, 10, now=615)
    assert window.reset_s(615) == 45 + 60
    assert window.reset_s(670) == 50
    assert window.reset_s(720) == 0


@given(
    st.lists(st.tuples(st.floats(0, 200), st.integers(1, 10)), max_size=30),
    st.integers(1, 10),
)
def test_what_is_told_to_wait_fits_then_and_not_much_before(uses, amount):
    window, now, most = Window(MINUTE), 600.0, 10
    for step, cost in uses:
        now += step
        window.take(cost, most, now)
        assert window.used(now) <= most + 1e-6
    wait = window.wait_s(amount, most, now)
    assert 0 <= wait <= 2 * MINUTE
    if wait > 0.01:
        assert not window.take(amount, most, now + wait * 0.98 - 0.01)
    assert window.used(now + wait + 0.001) + amount <= most + 1e-3
