"""What a tenant used, what it cost, and what caching saved it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mooring.core.charge import Charge, ChargeKind, Grouping
from mooring.core.errors import RequestNotFound
from mooring.registry.ledger import Ledger, Total, group_of
from mooring.service.charging import Charging

_DAY_S = 86_400


@dataclass
class UsageRow:
    """One group. Amounts are nano-units."""

    group: str
    requests: int = 0
    quantities: dict[ChargeKind, int] = field(default_factory=dict)
    """Tokens; token-minutes of storage; calls."""
    amounts: dict[ChargeKind, int] = field(default_factory=dict)
    plain: int = 0
    """What the same would have cost without any caching."""

    @property
    def amount(self) -> int:
        return sum(self.amounts.values())

    @property
    def saved(self) -> int:
        """Below 0 where caching cost more than it saved."""
        return self.plain - self.amount

    def add(self, kind: ChargeKind, quantity: int, amount: int, plain: int) -> None:
        self.quantities[kind] = self.quantities.get(kind, 0) + quantity
        self.amounts[kind] = self.amounts.get(kind, 0) + amount
        self.plain += plain


class Statements:
    """Reads the ledger."""

    def __init__(
        self, ledger: Ledger, charging: Charging, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._charging = charging
        self._clock = clock

    async def usage(
        self, tenant: str, group: Grouping, *, since: int = 0, before: int | None = None
    ) -> list[UsageRow]:
        """What was used in [since, before), Unix seconds, group by group.

        Storage stands where a cache's life ended. What runs now is in it up to now, unless the time ends
        before.
        """

        def read() -> tuple[Sequence[Total], Sequence[Charge]]:
            now = int(self._clock())
            end = now + 1 if before is None else before
            running = self._charging.running(tenant) if since <= now < end else []
            return self._ledger.totals(tenant, group, since=since, before=end), running

        totals, running = await asyncio.to_thread(read)
        rows: dict[str, UsageRow] = {}
        for total in totals:
            row = rows.setdefault(total.group, UsageRow(total.group))
            row.add(total.kind, total.quantity, total.amount, total.plain)
            row.requests = max(row.requests, total.requests)
        for line in running:
            name = self._group_of(line, group)
            row = rows.setdefault(name, UsageRow(name))
            row.add(line.kind, line.quantity, line.amount, line.plain)
        return sorted(rows.values(), key=lambda row: row.group)

    async def explain(self, tenant: str, request_id: str) -> Sequence[Charge]:
        """The lines of one request. Raises RequestNotFound."""

        def read() -> Sequence[Charge]:
            return self._ledger.lines(tenant, request_id=request_id)

        lines = await asyncio.to_thread(read)
        if not lines:
            raise RequestNotFound(request_id)
        return lines

    def _group_of(self, line: Charge, group: Grouping) -> str:
        value = {
            Grouping.DAY: line.created_at // _DAY_S,
            Grouping.MODEL: line.model,
            Grouping.CACHE: line.cache_id,
            Grouping.TAG: line.tag,
        }[group]
        return group_of(group, value)
