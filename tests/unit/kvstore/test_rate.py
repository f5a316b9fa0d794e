"""How fast a tier is: believed at first, then measured."""

import pytest

from mooring.kvstore.rate import Rate


def test_rate_is_what_is_believed_before_it_was_measured():
    assert Rate(200.0).seconds_for(100) == 0.5


def test_rate_is_what_was_measured():
    rate = Rate(1e9)
    rate.measured(1000, 10.0)
    assert rate.seconds_for(50) == pytest.approx(0.5)


def test_rate_follows_a_disk_that_has_become_slow():
    rate = Rate(1e9)
    for _ in range(50):
        rate.measured(1000, 1.0)
    for _ in range(50):
        rate.measured(1000, 10.0)
    assert rate.bytes_per_second == pytest.approx(100, rel=0.1)


def test_rate_weighs_by_bytes():
    rate = Rate(1e9)
    rate.measured(1_000_000, 1.0)
    rate.measured(1, 0.01)
    assert rate.bytes_per_second == pytest.approx(1e6, rel=0.02)


def test_rate_survives_a_measurement_of_no_time():
    rate = Rate(200.0)
    rate.measured(10, 0.0)
    assert rate.seconds_for(100) == 0.5
