"""What a tenant used, what it cost, and what caching saved it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mooring.core.charge import Charge, ChargeKind, Grouping
from mooring.core.errors import RequestNotFound
from mooring.registry.ledger import Ledger, Total, group_of
from mooring.service.charging import Charging

_DAY_S = 86_400
_FAR_FUTURE = 1 << 62


@dataclass
class UsageRow:
    """One group. Amounts are nano-units."""

    group: str
    currency: str
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

    def __init__(self, ledger: Ledger, charging: Charging) -> None:
        self._ledger = ledger
        self._charging = charging

    async def usage(
        self, tenant: str, group: Grouping, *, since: int = 0, before: int | None = None
    ) -> list[UsageRow]:
        """What was used in [since, before), Unix seconds, group by group.

        Storage stands in the days of a cache's life; of a life that goes on, it is reckoned up to now.
        So the usage of a time that is over is always the same.
        """

        def read() -> tuple[Sequence[Total], Sequence[Charge]]:
            end = _FAR_FUTURE if before is None else before
            running = [line for line in self._charging.running(tenant) if since <= line.created_at < end]
            return self._ledger.totals(tenant, group, since=since, before=end), running

        totals, running = await asyncio.to_thread(read)
        rows: dict[tuple[str, str], UsageRow] = {}
        for total in totals:
            row = rows.setdefault((total.group, total.currency), UsageRow(total.group, total.currency))
            row.add(total.kind, total.quantity, total.amount, total.plain)
            row.requests = max(row.requests, total.requests)
        for line in running:
            name = self._group_of(line, group)
            row = rows.setdefault((name, line.currency), UsageRow(name, line.currency))
            row.add(line.kind, line.quantity, line.amount, line.plain)
        return [row for _, row in sorted(rows.items())]

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
