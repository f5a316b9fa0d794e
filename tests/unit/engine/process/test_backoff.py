"""The first restart is at once, the next ones later and later."""

from mooring.engine.process.backoff import SETTLED_S, Backoff


def test_backoff_grows_while_processes_end_soon() -> None:
    backoff = Backoff()
    delays = [backoff.after(1.0) for _ in range(12)]
    assert delays[:4] == [0.0, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == 60.0


def test_backoff_stays_finite_however_often_it_is_asked() -> None:
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(5000)][-1] == 60.0


def test_backoff_begins_anew_after_a_process_that_settled() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.after(0.0)
    assert [backoff.after(SETTLED_S), backoff.after(0.0)] == [0.0, 0.5]
