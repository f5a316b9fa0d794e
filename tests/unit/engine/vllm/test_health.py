"""When workers are asked how they are."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.vllm.health import TOLERATED, Pulse, pause_s


@given(st.floats(0.1, 60), st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_with_silence_up_to_half_a_minute(
    interval_s: float, misses: int, chance: float
) -> None:
    pause = pause_s(interval_s, misses, chance)
    assert 0.8 * interval_s <= pause <= 1.2 * max(30, interval_s) + 1e-9
    assert pause_s(interval_s, misses + 1, chance) >= pause


def test_askers_do_not_keep_step() -> None:
    assert pause_s(2, 0, 0.1) != pause_s(2, 0, 0.9)


def test_one_missed_answer_is_no_death_and_one_answer_is_a_life() -> None:
    pulse = Pulse(interval_s=2)
    heard = [pulse.heard(False) for _ in range(TOLERATED)]
    assert heard == [True] * (TOLERATED - 1) + [False]
    assert pulse.heard(True)
    assert pulse.heard(False)


def test_whoever_is_woken_asks_at_once() -> None:
    async def woken() -> None:
        wake = asyncio.Event()
        wake.set()
        async with asyncio.timeout(5):
            await Pulse(interval_s=3600).wait(wake)
        assert not wake.is_set()

    asyncio.run(woken())
