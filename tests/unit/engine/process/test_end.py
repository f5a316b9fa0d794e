"""How a process ended, in words."""

import signal

import pytest

from mooring.engine.process.end import End, how_it_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (70, "exit status 70"),
        (-signal.SIGABRT, "signal SIGABRT"),
        (-signal.SIGKILL, "signal SIGKILL, as when memory runs out"),
        (-40, "signal 40"),
    ],
)
def test_how_it_ended_names_the_signal(status: int, words: str) -> None:
    assert how_it_ended(status) == words


def test_end_says_what_was_running() -> None:
    assert End("", 0, {"keep": 1, "generate": 12}).victims == "generate:12,keep:1"
    assert End("", 0, {}).victims == "nothing"
