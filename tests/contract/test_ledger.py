"""The ledger over a real registry: random histories bill the same as a slow, obvious model."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mooring.core.charge import Charge, ChargeKind
from mooring.core.context import CacheObject, Status, new_cache_id
from mooring.core.errors import MooringError, RegistryFailed
from mooring.core.usage import Usage
from mooring.registry.caches import Caches
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.ledger import Ledger
from mooring.service.charging import Charging, ChatBill
from mooring.service.pricing import PricePlan, Prices, Tariff, load_plans

NOW = 1_760_000_000
OLD = Prices(input=2, cached_input=1, output=3, creation=5, storage_minute=7, call=11)
NEW = Prices(input=20, cached_input=10, output=30, creation=50, storage_minute=70, call=110)
CHANGE = NOW + 1000
TARIFFS = (Tariff(0, (("any", OLD),)), Tariff(CHANGE, (("any", NEW),)))
PLAN = PricePlan("test", "XXX", 2, TARIFFS)
ABROAD = PricePlan("abroad", "YYY", 2, (Tariff(0, (("any", NEW),)), Tariff(CHANGE, (("any", OLD),))))
PLANS = (PLAN, ABROAD, PricePlan("gift", "XXX", 2, (Tariff(0, (("any", Prices(0, 0, 0, 0, 0, 0)),)),)))
TENANTS = ("north", "south")


@dataclass
class InForce:
    """Which plan holds when, in the obvious model: a list, read from its beginning."""

    changes: list[tuple[int, PricePlan]] = field(default_factory=lambda: [(0, PLAN)])

    def at(self, moment: int) -> tuple[str, Prices]:
        """The currency and the prices that held at a moment."""
        plan = [plan for since, plan in self.changes if since <= moment][-1]
        return plan.currency, self._prices(plan, moment)

    def now(self, moment: int) -> tuple[str, Prices]:
        """Those for what is charged at once: the server's own plan, wherever its clock stands."""
        plan = self.changes[-1][1]
        return plan.currency, self._prices(plan, moment)

    def _prices(self, plan: PricePlan, moment: int) -> Prices:
        tariff = [tariff for tariff in plan.tariffs if tariff.since <= moment][-1]
        return tariff.prices("m", 1)


@dataclass
class Kept:
    """A cache in the obvious model."""

    id: str
    tenant: str
    tokens: int
    end: int
    status: str = "ready"
    began: int | None = None
    charged: Counter[str] = field(default_factory=Counter)
    """By currency, for its creation and its lives that are over: what a later price does not change."""

    def close(self, now: int, plans: InForce) -> None:
        self.charged = self.cost(now, plans)
        self.began = None

    def cost(self, now: int, plans: InForce) -> Counter[str]:
        """With the life that goes on, minute by minute; by currency."""
        cost = Counter(self.charged)
        if self.began is not None:
            ended = max(self.began, min(now, self.end))
            for minute in range(max(1, math.ceil((ended - self.began) / 60))):
                currency, prices = plans.at(self.began + 60 * minute)
                cost[currency] += prices.storage_minute * self.tokens
        return cost


class Histories(RuleBasedStateMachine):
    """What happens to caches and chats, with clocks that step in either direction."""

    def open(self) -> Database:
        return Database(Path(":memory:"))

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.database = self.open()
        self.caches = Caches(self.database)
        self.ledger = Ledger(self.database)
        self.plans = InForce()
        self.charging = self.start_with(PLAN)
        self.kept: dict[str, Kept] = {}
        self.gone: list[Kept] = []
        self.chats: dict[str, Counter[str]] = {tenant: Counter() for tenant in TENANTS}
        self.requests = 0

    def start_with(self, plan: PricePlan) -> Charging:
        """As a server does whose configuration names this plan."""
        commits = GroupCommit(self.database)
        charging = Charging(self.ledger, commits, plan, clock=lambda: self.now)
        charging.put_in_force()
        return charging

    def teardown(self) -> None:
        self.database.close()

    @rule(step=st.integers(-300, 900))
    def step_the_clock(self, step: int) -> None:
        self.now += step

    @rule(plan=st.sampled_from(PLANS))
    def restart_with(self, plan: PricePlan) -> None:
        last, before = self.plans.changes[-1]
        if plan != before:
            self.plans.changes.append((max(self.now, last), plan))
        self.charging = self.start_with(plan)

    @rule(tenant=st.sampled_from(TENANTS), tokens=st.integers(0, 1000), ttl=st.integers(1, 600))
    def create(self, tenant: str, tokens: int, ttl: int) -> None:
        cache_id = new_cache_id()
        end = self.now + ttl
        self.caches.insert(
            CacheObject(
                cache_id, tenant, "m", (), (), "", "", None, self.now, end, Status.PENDING, tokens, "p"
            )
        )
        self.settle(cache_id, tenant, tokens)
        currency, prices = self.plans.now(self.now)
        created = Counter({currency: prices.creation * tokens})
        self.kept[cache_id] = Kept(cache_id, tenant, tokens, end, began=self.now, charged=created)

    def settle(self, cache_id: str, tenant: str, tokens: int) -> None:
        for _ in range(2):  # a fill may be repeated
            step = self.charging.ready(cache_id, tenant, "m", tokens)
            self.caches.settle(cache_id, Status.READY, None, step)

    @rule(data=st.data(), ttl=st.integers(1, 600))
    def give_another_end(self, data: st.DataObject, ttl: int) -> None:
        """By a chat that resets the TTL; past its end, the cache is revived."""
        if not self.kept:
            return
        kept = self.kept[data.draw(st.sampled_from(sorted(self.kept)))]
        end = self.now + ttl
        moved = self.charging.moved(kept.id, end, self.now)
        revived = None
        if not self.caches.extend(kept.id, end, self.now, moved):
            revived = self.caches.revive(kept.id, end, self.now, moved)
            assert revived is not None
        self._moved(kept, end)
        if revived is not None and revived.status is Status.PENDING:
            self.settle(kept.id, kept.tenant, kept.tokens)
            if kept.began is None:
                kept.began = self.now

    @rule(data=st.data(), ttl=st.integers(1, 600))
    def update(self, data: st.DataObject, ttl: int) -> None:
        if not self.kept:
            return
        kept = self.kept[data.draw(st.sampled_from(sorted(self.kept)))]
        end = self.now + ttl
        self.caches.update(
            kept.tenant,
            kept.id,
            metadata=None,
            expired_at=end,
            also=self.charging.moved(kept.id, end, self.now),
        )
        self._moved(kept, end)
        self.settle(kept.id, kept.tenant, kept.tokens)
        if kept.began is None:
            kept.began = self.now

    def _moved(self, kept: Kept, end: int) -> None:
        if kept.began is not None and kept.end <= self.now:
            kept.close(self.now, self.plans)
        kept.end = end

    @rule()
    def sweep(self) -> None:
        for over in self.caches.expire(self.now, self.charging.over):
            kept = self.kept[over.id]
            if kept.began is not None:
                kept.close(self.now, self.plans)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if not self.kept:
            return
        kept = self.kept.pop(data.draw(st.sampled_from(sorted(self.kept))))
        assert self.caches.delete(kept.tenant, kept.id, self.charging.over(kept.id)) is not None
        if kept.began is not None:
            kept.close(self.now, self.plans)
        self.gone.append(kept)

    @rule(
        tenant=st.sampled_from(TENANTS),
        prompt=st.integers(1, 1000),
        share=st.floats(0, 1),
        output=st.integers(0, 100),
        twice=st.booleans(),
    )
    def chat(self, tenant: str, prompt: int, share: float, output: int, twice: bool) -> None:
        cached = int(prompt * share)
        self.requests += 1
        usage = Usage(prompt, cached, output)
        cache_id = "cache-1" if cached else None
        bill = ChatBill(f"chatcmpl-{self.requests}", tenant, "m", usage, cache_id, None)
        for _ in range(2 if twice else 1):  # written again after a crash, say
            self.ledger.post(self.charging._lines(bill))
        currency, prices = self.plans.now(self.now)
        self.chats[tenant][currency] += (
            (prices.call if cached else 0)
            + prices.input * (prompt - cached)
            + prices.cached_input * cached
            + prices.output * output
        )

    @invariant()
    def the_bill_is_right_to_the_unit(self) -> None:
        for tenant in TENANTS:
            lines = self.ledger.lines(tenant)
            running = self.charging.running(tenant)
            owed = Counter(self.chats[tenant])
            for kept in [*self.kept.values(), *self.gone]:
                if kept.tenant == tenant:
                    owed.update(kept.cost(self.now, self.plans))
            for currency in ("XXX", "YYY"):
                billed = sum(line.amount for line in [*lines, *running] if line.currency == currency)
                assert billed == owed[currency]
                posted = sum(line.amount for line in lines if line.currency == currency)
                assert self.ledger.balance(tenant, currency) == -posted
            assert all(line.amount == line.quantity * line.unit >= 0 for line in lines)

    @invariant()
    def what_is_remembered_is_what_is_written(self) -> None:
        fresh, fresh_ledger = Caches(self.database), Ledger(self.database)
        for kept in [*self.kept.values(), *self.gone]:
            assert self.caches.get(kept.tenant, kept.id) == fresh.get(kept.tenant, kept.id)
        for tenant in TENANTS:
            for currency in ("XXX", "YYY"):
                known = self.ledger.at_least(tenant, currency)
                assert known in (None, fresh_ledger.balance(tenant, currency))

    @invariant()
    def only_caches_that_are_there_have_a_life(self) -> None:
        open_ids = {life.cache_id for life in self.ledger.open_lives()}
        assert open_ids == {kept.id for kept in self.kept.values() if kept.began is not None}


def test_histories_are_billed_right() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


def test_histories_are_billed_right_in_postgresql(postgres: sa.URL) -> None:
    """Fewer and shorter ones: each statement travels."""

    class Shared(Histories):
        def open(self) -> Database:
            database = Database(postgres)
            with database.begin() as connection:  # rows of the ledger cannot be deleted
                connection.execute(sa.text("ALTER TABLE charges DISABLE TRIGGER charges_no_change"))
                names = "caches, charges, accounts, lives, plan_history"
                connection.execute(sa.text(f"TRUNCATE {names}"))
                connection.execute(sa.text("ALTER TABLE charges ENABLE TRIGGER charges_no_change"))
            return database

    run_state_machine_as_test(
        Shared, settings=settings(max_examples=8, stateful_step_count=20, deadline=None)
    )


def line(key: str, amount: int = 5) -> Charge:
    return Charge(key, "north", ChargeKind.INPUT, amount, 1, amount, 0, "XXX", "test", "m", NOW)


def test_lines_are_never_changed_or_removed(database: Database):
    ledger = Ledger(database)
    ledger.post([line("a")])
    for statement in ("UPDATE charges SET amount = 0", "DELETE FROM charges"):
        with pytest.raises(RegistryFailed, match="append-only"), database.begin() as connection:
            connection.execute(sa.text(statement))
    assert [each.amount for each in ledger.lines("north")] == [5]


def test_the_same_thing_is_charged_once(database: Database):
    ledger = Ledger(database)
    ledger.post([line("a"), line("a"), line("b", 7)])
    ledger.post([line("a", 100)])
    assert [each.amount for each in ledger.lines("north")] == [5, 7]
    assert ledger.balance("north", "XXX") == -12


def test_lines_of_a_transaction_that_fails_are_not_there(database: Database):
    ledger = Ledger(database)
    broken = Charge("b", None, ChargeKind.INPUT, 1, 1, 1, 0, "XXX", "t", "m", NOW)  # type: ignore[arg-type]
    with pytest.raises(RegistryFailed):
        ledger.post([line("a"), broken])
    assert ledger.lines("north") == []
    assert ledger.balance("north", "XXX") == 0


def test_a_cache_at_its_very_end_never_stays_ready_without_a_life(database: Database):
    """The clock's second passes between the cache's change and the life's."""
    now = NOW
    caches, charging = (
        Caches(database),
        Charging(Ledger(database), GroupCommit(database), PLAN, clock=lambda: now),
    )
    end = NOW + 100
    caches.insert(CacheObject("c", "north", "m", (), (), "", "", None, NOW, end, Status.PENDING, 5, "p"))
    caches.settle("c", Status.READY, None, charging.ready("c", "north", "m", 5))
    read, now = end - 1, end
    assert caches.extend("c", end + 100, read, charging.moved("c", end + 100, read))
    kept = caches.get("north", "c")
    assert kept is not None
    assert (kept.status, len(Ledger(database).open_lives())) == (Status.READY, 1)


def test_chats_that_end_together_share_a_transaction(database: Database):
    async def run() -> int:
        ledger = Ledger(database)
        charging = Charging(ledger, GroupCommit(database), PLAN)
        commits: list[object] = []
        sa.event.listen(database.engine, "commit", commits.append)
        usage = Usage(10, 0, 5)
        bills = [ChatBill(f"chatcmpl-{n}", "north", "m", usage, None, None) for n in range(100)]
        await asyncio.gather(*map(charging.charge, bills))
        assert len(ledger.lines("north")) == 200
        return len(commits)

    assert asyncio.run(run()) <= 3


def test_what_costs_nothing_is_not_refused_when_it_cannot_be_metered(database: Database):
    async def run() -> None:
        charging = Charging(Ledger(database), GroupCommit(database), load_plans({})["free"])
        with database.begin() as connection:
            connection.execute(sa.text("ALTER TABLE charges RENAME TO hidden"))
        await charging.charge(ChatBill("chatcmpl-1", "north", "m", Usage(10, 0, 5), None, None))

    asyncio.run(run())


def test_an_amount_that_no_account_can_hold_fails_its_chat_and_no_other(database: Database):
    async def run() -> None:
        ledger = Ledger(database)
        dear = Prices(input=2**62, cached_input=0, output=0, creation=0, storage_minute=0, call=0)
        charging = Charging(
            ledger, GroupCommit(database), PricePlan("dear", "XXX", 2, (Tariff(0, (("any", dear),)),))
        )
        for prompt_tokens in (3, 1):
            bill = ChatBill(
                f"chatcmpl-{prompt_tokens}", "north", "m", Usage(prompt_tokens, 0, 0), None, None
            )
            if prompt_tokens == 3:
                with pytest.raises((MooringError, OverflowError)):
                    await asyncio.wait_for(charging.charge(bill), 10)
            else:
                await asyncio.wait_for(charging.charge(bill), 10)
        assert ledger.balance("north", "XXX") == -(2**62)

    asyncio.run(run())


def test_a_ledger_that_cannot_be_written_fails_every_chat_that_waits(database: Database):
    async def run() -> None:
        charging = Charging(Ledger(database), GroupCommit(database), PLAN)
        with database.begin() as connection:
            connection.execute(sa.text("ALTER TABLE charges RENAME TO hidden"))
        bill = ChatBill("chatcmpl-1", "north", "m", Usage(10, 0, 5), None, None)
        failures = await asyncio.gather(
            charging.charge(bill), charging.charge(bill), return_exceptions=True
        )
        assert all(isinstance(failure, RegistryFailed) for failure in failures)

    asyncio.run(run())
