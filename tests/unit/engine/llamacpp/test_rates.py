"""To load or to compute again."""

from mooring.engine.llamacpp.rates import Rate, Rates


def test_rate_is_unknown_until_something_was_measured():
    assert Rate().seconds(1000) == 0


def test_rate_is_what_was_measured_first():
    rate = Rate()
    rate.measured(100, 2.0)
    assert rate.seconds(500) == 10


def test_rate_follows_what_is_measured_later():
    rate = Rate()
    rate.measured(100, 1.0)
    for _ in range(50):
        rate.measured(400, 1.0)
    assert 380 < rate.per_second < 400


def test_rate_takes_no_measurement_without_time():
    rate = Rate()
    rate.measured(100, 0.0)
    assert rate.per_second is None


def test_rates_load_as_long_as_nobody_knows_better():
    assert Rates().worth_loading(read_s=100.0, size_bytes=1 << 30, tokens=1)


def test_rates_load_what_takes_longer_to_compute():
    rates = Rates()
    rates.prefill_tokens.measured(120, 1.0)
    rates.import_bytes.measured(6e9, 1.0)
    assert rates.worth_loading(read_s=0.05, size_bytes=50_000_000, tokens=4096)


def test_rates_compute_what_takes_longer_to_load():
    """The tier's time alone may decide, and the import's."""
    rates = Rates()
    rates.prefill_tokens.measured(100_000, 1.0)
    assert not rates.worth_loading(read_s=2.4, size_bytes=50_000_000, tokens=4096)
    rates.import_bytes.measured(10_000_000, 1.0)
    assert not rates.worth_loading(read_s=0.0, size_bytes=50_000_000, tokens=4096)


def test_rates_prefer_loading_when_both_take_about_as_long():
    rates = Rates()
    rates.prefill_tokens.measured(1000, 1.0)
    assert rates.worth_loading(read_s=1.1, size_bytes=0, tokens=1000)
