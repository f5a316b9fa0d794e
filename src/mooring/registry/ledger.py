"""The ledger: lines that are never changed, the balances they add up to, and the lives of caches.

A `Step` is a piece of somebody else's transaction, so that what happens and what it costs are committed
together or not at all.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from mooring.core.charge import Charge, ChargeKind, Grouping, Life
from mooring.core.errors import RegistryFailed
from mooring.registry.database import Database
from mooring.registry.schema import accounts, caches, charges, lives, plan_history

Step = Callable[[sa.Connection], None]
PriceLife = Callable[[Life, int], Sequence[Charge]]
"""The charges for a life that ends at a moment."""

_DAY_S = 86_400
_MOST = 2**63 - 1  # SQLite goes on counting in floats; PostgreSQL refuses
_GROUPS: dict[Grouping, sa.ColumnElement[Any]] = {
    Grouping.DAY: charges.c.created_at // _DAY_S,
    Grouping.MODEL: charges.c.model,
    Grouping.CACHE: charges.c.cache_id,
    Grouping.TAG: charges.c.tag,
}

_MOVE_LIFE = (
    lives.update()
    .where(lives.c.cache_id == sa.bindparam("id"), lives.c.until > sa.bindparam("now"))
    .values(until=sa.bindparam("end"))
)


@dataclass(frozen=True)
class Total:
    """The sum of a group's lines of one kind."""

    group: str
    currency: str
    kind: ChargeKind
    quantity: int
    amount: int
    plain: int
    requests: int


def group_of(group: Grouping, value: object) -> str:
    """How a group is called; "" is what has no cache or no tag."""
    if group is Grouping.DAY and isinstance(value, int):
        return datetime.fromtimestamp(value * _DAY_S, UTC).date().isoformat()
    return "" if value is None else str(value)


class Ledger:
    """Blocking; safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._balances: dict[tuple[str, str], int] = {}
        """By tenant and currency, after the last change that this object made."""
        self._new_lines = (
            database.insert(charges)
            .on_conflict_do_nothing(index_elements=["key"])
            .returning(charges.c.tenant, charges.c.currency, charges.c.amount)
        )
        account = database.insert(accounts)
        self._pay = account.on_conflict_do_update(
            index_elements=["tenant", "currency"],
            set_={"balance": accounts.c.balance + account.excluded.balance},
        ).returning(accounts.c.balance)
        self._new_life = database.insert(lives).on_conflict_do_nothing()

    def post(self, lines: Iterable[Charge]) -> None:
        """Write lines in one transaction; those that are there already stay as they are."""
        with self._database.begin() as connection:
            self._post(connection, lines)

    def at_least(self, tenant: str, currency: str) -> int | None:
        """What the balance is, or was before others topped it up; None: look. Does not block.

        Unless the database is shared, one process alone charges (the data directory's lock sees to it),
        through this object.
        """
        return None if self._database.is_shared else self._balances.get((tenant, currency))

    def balance(self, tenant: str, currency: str) -> int:
        """Nano-units: what came in, less what was charged."""
        with self._database.read() as connection:
            return _balance(connection, tenant, currency)

    def plans(self) -> Sequence[tuple[int, dict[str, Any]]]:
        """The plans that were in force, each with the Unix second it was in force from; in order."""
        query = sa.select(plan_history.c.since, plan_history.c.plan).order_by(plan_history.c.serial)
        with self._database.read() as connection:
            return [(since, plan) for since, plan in connection.execute(query)]

    def put_in_force(self, plan: Mapping[str, Any], now: int) -> None:
        """A plan holds from now on, though never before the last change; the first one from ever.

        Of several servers that start with the same plan, one writes it.
        """
        newest = sa.select(plan_history.c.since, plan_history.c.plan)
        newest = newest.order_by(plan_history.c.serial.desc()).limit(1)
        written = json.loads(json.dumps(plan))
        with self._database.begin() as connection:
            self._database.lock(connection, "plan")
            last = connection.execute(newest).one_or_none()
            if last is not None and last.plan == written:
                return
            since = 0 if last is None else max(now, last.since)
            connection.execute(plan_history.insert().values(since=since, plan=written))

    def open_lives(self, tenant: str | None = None) -> Sequence[Life]:
        """The lives that go on, of one tenant or of all."""
        query = lives.select().order_by(lives.c.serial)
        if tenant is not None:
            query = query.where(lives.c.tenant == tenant)
        with self._database.read() as connection:
            return [Life(**row._mapping) for row in connection.execute(query)]

    def lines(
        self,
        tenant: str,
        *,
        since: int = 0,
        before: int | None = None,
        request_id: str | None = None,
    ) -> Sequence[Charge]:
        """A tenant's lines of a time, or of one request, in the order they were written."""
        query = charges.select().where(charges.c.tenant == tenant, charges.c.created_at >= since)
        if before is not None:
            query = query.where(charges.c.created_at < before)
        if request_id is not None:
            query = query.where(charges.c.request_id == request_id)
        with self._database.read() as connection:
            return [_charge(row) for row in connection.execute(query.order_by(charges.c.serial))]

    def totals(self, tenant: str, group: Grouping, *, since: int, before: int) -> Sequence[Total]:
        """Sums of a tenant's lines of a time, by group and kind; top-ups are not among them."""
        by = _GROUPS[group]
        query = (
            sa.select(
                by,
                charges.c.currency,
                charges.c.kind,
                sa.func.sum(charges.c.quantity),
                sa.func.sum(charges.c.amount),
                sa.func.sum(charges.c.plain),
                sa.func.count(charges.c.request_id.distinct()),
            )
            .where(charges.c.tenant == tenant, charges.c.kind != ChargeKind.TOP_UP)
            .where(charges.c.created_at >= since, charges.c.created_at < before)
            .group_by(by, charges.c.currency, charges.c.kind)
            .order_by(by, charges.c.currency, charges.c.kind)
        )
        with self._database.read() as connection:
            return [
                Total(group_of(group, row[0]), row[1], ChargeKind(row[2]), *map(int, row[3:]))
                for row in connection.execute(query)
            ]

    # Steps of the transactions that change a cache

    def beginning(self, cache_id: str, tokens: int, now: int, creation: Sequence[Charge]) -> Step:
        """A cache is ready. Its life begins, unless it goes on; its creation is charged, once."""

        def step(connection: sa.Connection) -> None:
            row = connection.execute(caches.select().where(caches.c.id == cache_id)).one()
            life = {
                "cache_id": cache_id,
                "tenant": row.tenant,
                "model": row.model,
                "tokens": tokens,
                "began_at": now,
                "until": row.expired_at,
            }
            connection.execute(self._new_life, life)
            self._post(connection, creation)

        return step

    def ending(self, cache_id: str, now: int, price: PriceLife) -> Step:
        """A cache is over: its life, if it had one, is charged up to now or to its end."""

        def step(connection: sa.Connection) -> None:
            for life in _lives_of(connection, cache_id):
                self._close(connection, life, life.end(now), price)

        return step

    def moving(self, cache_id: str, until: int, now: int, price: PriceLife) -> Step:
        """A cache has another end. If it was past the old one, that life is over."""

        def step(connection: sa.Connection) -> None:
            values = {"id": cache_id, "now": now, "end": until}
            if not connection.execute(_MOVE_LIFE, values).rowcount:
                for life in _lives_of(connection, cache_id):
                    self._close(connection, life, life.end(now), price)

        return step

    def _close(self, connection: sa.Connection, life: Life, ended_at: int, price: PriceLife) -> None:
        connection.execute(lives.delete().where(lives.c.serial == life.serial))
        self._post(connection, price(life, ended_at))

    def _post(self, connection: sa.Connection, lines: Iterable[Charge]) -> None:
        rows = [vars(line) for line in lines]
        if not rows:
            return
        moved: Counter[tuple[str, str]] = Counter()
        for tenant, currency, amount in connection.execute(self._new_lines, rows):
            moved[tenant, currency] -= amount
        for account, change in sorted(moved.items()):  # in one order, so that nobody waits in a circle
            tenant, currency = account
            values = {"tenant": tenant, "currency": currency, "balance": change}
            balance = connection.execute(self._pay, values).scalar_one()
            if abs(balance) > _MOST:
                raise RegistryFailed(f"the account of {tenant} cannot hold {balance:.0f} nano-units")
            self._database.after_commit(partial(self._balances.__setitem__, account, balance))


def both(first: Step, second: Step | None) -> Step:
    """One after the other."""

    def step(connection: sa.Connection) -> None:
        first(connection)
        if second is not None:
            second(connection)

    return step


def _lives_of(connection: sa.Connection, cache_id: str) -> list[Life]:
    """The one that goes on, if there is one."""
    found = connection.execute(lives.select().where(lives.c.cache_id == cache_id)).all()
    return [Life(**row._mapping) for row in found]


def _balance(connection: sa.Connection, tenant: str, currency: str) -> int:
    query = sa.select(accounts.c.balance).where(
        accounts.c.tenant == tenant, accounts.c.currency == currency
    )
    return connection.execute(query).scalar_one_or_none() or 0


def _charge(row: sa.Row[Any]) -> Charge:
    values = dict(row._mapping)
    del values["serial"]
    return Charge(**values | {"kind": ChargeKind(values["kind"])})
