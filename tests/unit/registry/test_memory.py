"""Rows in memory are what is in the database, whoever changes it when."""

from dataclasses import replace

from mooring.core.context import CacheObject, Status
from mooring.registry.memory import CacheMemory

ROW = CacheObject("a", "north", "m", (), (), "", "", None, 0, 100, Status.READY, 900, "p")


def row(name: str) -> CacheObject:
    return replace(ROW, id=name)


def test_what_was_read_is_remembered_and_what_is_not_there_is_not():
    memory = CacheMemory(10_000)
    assert memory.read("a", lambda: ROW) == memory.get("a") == ROW
    assert memory.read("b", lambda: None) is None
    assert memory.get("b") is None


def test_a_change_is_seen_and_only_in_its_row():
    memory = CacheMemory(10_000)
    memory.read("a", lambda: ROW)
    memory.read("b", lambda: row("b"))
    memory.changed("a", expired_at=200)
    assert memory.get("a") == replace(ROW, expired_at=200)
    assert memory.get("b") == row("b")
    memory.forget("a")
    assert memory.get("a") is None


def test_a_row_that_is_changed_while_it_is_being_read_is_not_remembered():
    memory = CacheMemory(10_000)

    def change_meanwhile() -> CacheObject:
        memory.changed("a", expired_at=200)
        return ROW  # as it was before

    def forget_meanwhile() -> CacheObject:
        memory.forget("a")
        return ROW

    for select in (change_meanwhile, forget_meanwhile):
        assert memory.read("a", select) == ROW
        assert memory.get("a") is None


def test_the_rows_used_last_are_kept_and_no_more_than_fit():
    memory = CacheMemory(3000)  # three rows of 900 tokens and what a row itself takes
    for name in "abc":
        memory.read(name, lambda name=name: row(name))
    memory.get("a")
    memory.read("d", lambda: row("d"))
    assert [memory.get(name) is not None for name in "abcd"] == [True, False, True, True]
