"""Charges on disk until the registry takes them: none is lost, and none written twice."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mooring.core.charge import Charge, ChargeKind
from mooring.core.errors import RegistryUnavailable, StorageFull
from mooring.core.usage import Usage
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.journal import Journal
from mooring.registry.ledger import Ledger
from mooring.service.charging import Charging, ChatBill
from mooring.service.pricing import load_plans

pytestmark = pytest.mark.anyio

NOW = 1_760_000_000


def bill(key: str, amount: int = 5) -> list[Charge]:
    return [Charge(key, "north", ChargeKind.INPUT, amount, 1, amount, 0, "USD", "p", "m", NOW)]


def chat(number: int) -> ChatBill:
    return ChatBill(f"chatcmpl-{number}", "north", "m", Usage(10, 0, 5), None, None)


class Outage(Ledger):
    """Away, or away after it has written: its answer is lost on the way."""

    away = True
    writes_all_the_same = False

    def post(self, lines) -> None:
        if self.writes_all_the_same or not self.away:
            super().post(lines)
        if self.away:
            raise RegistryUnavailable("away")


def charging_on(database: Database, journal: Journal) -> tuple[Charging, Outage]:
    ledger = Outage(database)
    plan = load_plans({})["dollar-2025"]
    return Charging(ledger, GroupCommit(database), plan, journal=journal), ledger


def post_unheard(ledger: Outage, lines: list[Charge]) -> None:
    """It is committed, and the connection breaks before that is told."""
    with pytest.raises(RegistryUnavailable):
        ledger.post(lines)


def test_bills_are_there_until_they_are_posted(tmp_path: Path):
    journal = Journal(tmp_path, 10_000)
    journal.keep(bill("a"))
    journal.keep(bill("b"))
    assert Journal(tmp_path, 10_000).take() == [bill("a"), bill("b")]
    journal.keep(bill("c"))  # while those are on their way
    assert journal.take() == [bill("a"), bill("b")]
    journal.posted()
    assert journal.take() == [bill("c")]
    journal.posted()
    assert (journal.size(), journal.take()) == (0, [])


def test_a_bill_that_a_crash_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path: Path):
    journal = Journal(tmp_path, 10_000)
    journal.keep(bill("a"))
    with (tmp_path / "charges.waiting").open("ab") as file:
        file.write(b'[{"key": "b", "ten')
    journal = Journal(tmp_path, 10_000)
    journal.keep(bill("c"))
    assert journal.take() == [bill("a"), bill("c")]
    assert not (tmp_path / "charges.rejected").exists()


def test_a_full_journal_takes_no_more_and_keeps_what_it_has(tmp_path: Path):
    journal = Journal(tmp_path, 300)
    journal.keep(bill("a"))
    with pytest.raises(StorageFull):
        journal.keep(bill("b"))
    assert journal.take() == [bill("a")]


def test_what_cannot_be_read_is_put_aside(tmp_path: Path):
    (tmp_path / "charges.waiting").write_bytes(b'[{"kind": "unknown"}]\n')
    journal = Journal(tmp_path, 10_000)
    journal.keep(bill("a"))
    assert journal.take() == [bill("a")]
    assert (tmp_path / "charges.rejected").read_bytes() == b'[{"kind": "unknown"}]\n'


async def test_chats_that_end_while_the_registry_is_away_are_charged_when_it_is_back(
    database: Database, tmp_path: Path
):
    charging, ledger = charging_on(database, Journal(tmp_path, 100_000))
    await asyncio.gather(*(charging.charge(chat(number)) for number in range(20)))
    assert ledger.lines("north") == []
    with pytest.raises(RegistryUnavailable):
        await charging.post_waiting()
    ledger.away = False
    await charging.post_waiting()
    await charging.post_waiting()
    assert len(ledger.lines("north")) == 40


async def test_chats_of_a_process_that_ended_are_charged_by_the_next(database: Database, tmp_path: Path):
    charging, _ = charging_on(database, Journal(tmp_path, 100_000))
    await charging.charge(chat(1))
    charging, ledger = charging_on(database, Journal(tmp_path, 100_000))
    ledger.away = False
    await charging.post_waiting()
    assert len(ledger.lines("north")) == 2


async def test_a_charge_whose_commit_nobody_heard_of_is_charged_once(database: Database, tmp_path: Path):
    charging, ledger = charging_on(database, Journal(tmp_path, 100_000))
    ledger.writes_all_the_same = True
    await asyncio.to_thread(post_unheard, ledger, charging._lines(chat(1)))
    await charging.charge(chat(1))
    ledger.away = False
    await charging.post_waiting()
    lines = ledger.lines("north")
    assert len(lines) == 2
    assert ledger.balance("north", "USD") == -sum(line.amount for line in lines)


async def test_a_chat_that_finds_no_room_in_the_journal_fails_if_it_owes(
    database: Database, tmp_path: Path
):
    charging, _ = charging_on(database, Journal(tmp_path, 10))
    with pytest.raises(StorageFull):
        await charging.charge(chat(1))


async def test_one_bill_that_the_ledger_never_takes_holds_up_no_other(
    database: Database, tmp_path: Path
):
    journal = Journal(tmp_path, 100_000)
    for key, amount in (("a", 5), ("b", 7)):
        journal.keep(bill(key, amount))
    journal.keep([replace(*bill("c"), tenant=None)])  # type: ignore[arg-type]
    charging, ledger = charging_on(database, journal)
    ledger.away = False
    await charging.post_waiting()
    assert [line.key for line in ledger.lines("north")] == ["a", "b"]
    assert journal.size() == 0
    assert (tmp_path / "charges.rejected").exists()


def test_the_ledger_in_postgresql_cannot_be_emptied(postgres: sa.URL):
    database = Database(postgres)
    Ledger(database).post(bill("a"))
    with database.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        connection.execute(sa.text("TRUNCATE charges"))
    database.close()
