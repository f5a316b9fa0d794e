"""The ledger: lines that are never changed, the balances they add up to, and the lives of caches.

A `Step` is a piece of somebody else's transaction, so that what happens and what it costs are committed
together or not at all.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from mooring.core.charge import Charge, ChargeKind, Grouping, Life
from mooring.core.errors import RegistryFailed
from mooring.registry.database import Database
from mooring.registry.schema import accounts, caches, charges, lives, plan_history

Step = Callable[[sa.Connection], None]
PriceLife = Callable[[Life, int], Sequence[Charge]]
"""The charges for a life that ends at a moment."""

_DAY_S = 86_400
_MOST = 2**63 - 1  # SQLite goes on counting in floats
_GROUPS: dict[Grouping, sa.ColumnElement[Any]] = {
    Grouping.DAY: charges.c.created_at // _DAY_S,
    Grouping.MODEL: charges.c.model,
    Grouping.CACHE: charges.c.cache_id,
    Grouping.TAG: charges.c.tag,
}

_NEW_LINES = (
    insert(charges)
    .on_conflict_do_nothing(index_elements=["key"])
    .returning(charges.c.tenant, charges.c.currency, charges.c.amount)
)
_ACCOUNT = insert(accounts)
_PAY = _ACCOUNT.on_conflict_do_update(
    index_elements=["tenant", "currency"],
    set_={"balance": accounts.c.balance + _ACCOUNT.excluded.balance},
).returning(accounts.c.balance)
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

    def post(self, lines: Iterable[Charge]) -> None:
        """Write lines in one transaction; those that are there already stay as they are."""
        with self._database.begin() as connection:
            _post(connection, lines)

    def balance(self, tenant: str, currency: str) -> int:
        """Nano-units: what came in, less what was charged."""
        with self._database.read() as connection:
            return _balance(connection, tenant, currency)

    def plans(self) -> Sequence[tuple[int, dict[str, Any]]]:
        """The plans that were in force, each with the Unix second it was in force from; in order."""
        query = sa.select(plan_history.c.since, plan_history.c.plan).order_by(plan_history.c.serial)
        with self._database.read() as connection:
            return [(since, plan) for since, plan in connection.execute(query)]

    def put_in_force(self, plan: Mapping[str, Any], since: int) -> None:
        """Another plan holds from now on."""
        with self._database.begin() as connection:
            connection.execute(plan_history.insert().values(since=since, plan=dict(plan)))

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
                Total(group_of(group, row[0]), row[1], ChargeKind(row[2]), *row[3:])
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
            connection.execute(insert(lives).values(life).on_conflict_do_nothing())
            _post(connection, creation)

        return step

    def ending(self, cache_id: str, now: int, price: PriceLife) -> Step:
        """A cache is over: its life, if it had one, is charged up to now or to its end."""

        def step(connection: sa.Connection) -> None:
            for life in _lives_of(connection, cache_id):
                _close(connection, life, life.end(now), price)

        return step

    def moving(self, cache_id: str, until: int, now: int, price: PriceLife) -> Step:
        """A cache has another end. If it was past the old one, that life is over."""

        def step(connection: sa.Connection) -> None:
            values = {"id": cache_id, "now": now, "end": until}
            if not connection.execute(_MOVE_LIFE, values).rowcount:
                for life in _lives_of(connection, cache_id):
                    _close(connection, life, life.end(now), price)

        return step


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


def _close(connection: sa.Connection, life: Life, ended_at: int, price: PriceLife) -> None:
    connection.execute(lives.delete().where(lives.c.serial == life.serial))
    _post(connection, price(life, ended_at))


def _post(connection: sa.Connection, lines: Iterable[Charge]) -> None:
    rows = [vars(line) for line in lines]
    if not rows:
        return
    moved: Counter[tuple[str, str]] = Counter()
    for tenant, currency, amount in connection.execute(_NEW_LINES, rows):
        moved[tenant, currency] -= amount
    for (tenant, currency), change in moved.items():
        values = {"tenant": tenant, "currency": currency, "balance": change}
        balance = connection.execute(_PAY, values).scalar_one()
        if abs(balance) > _MOST:
            raise RegistryFailed(f"the account of {tenant} cannot hold {balance:.0f} nano-units")


def _balance(connection: sa.Connection, tenant: str, currency: str) -> int:
    query = sa.select(accounts.c.balance).where(
        accounts.c.tenant == tenant, accounts.c.currency == currency
    )
    return connection.execute(query).scalar_one_or_none() or 0


def _charge(row: sa.Row[Any]) -> Charge:
    values = dict(row._mapping)
    del values["serial"]
    return Charge(**values | {"kind": ChargeKind(values["kind"])})
