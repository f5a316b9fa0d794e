"""What a tenant has and used (docs/moonshot-api.md, sections 4 and 6)."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from mooring.api.auth import Tenant
from mooring.api.document import documented
from mooring.api.replies import BalanceReply, RequestLines, UsageList
from mooring.core.charge import Charge, Grouping
from mooring.service.charging import Charging
from mooring.service.pricing import NANO, PricePlan
from mooring.service.statements import Statements, UsageRow

_CREDIT = 1_000_000.0
"""Where nothing is prepaid: a balance that no client takes for used up."""


def router(charging: Charging, statements: Statements) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["account"])
    plan = charging.plan

    @routes.get("/users/me/balance", **documented(BalanceReply))
    async def balance(tenant: Tenant) -> dict[str, Any]:
        """What is left; a server that is not prepaid gives credit."""
        cash = await charging.balance(tenant) / NANO
        available = await charging.available(tenant) / NANO if charging.is_prepaid else _CREDIT
        amounts = {
            "available_balance": available,
            "voucher_balance": 0.0 if charging.is_prepaid else _CREDIT,
            "cash_balance": cash,
        }
        return {"code": 0, "data": amounts, "scode": "0x0", "status": True}

    @routes.get("/usage", **documented(UsageList))
    async def usage(
        tenant: Tenant,
        group_by: Grouping = Grouping.DAY,
        from_: Annotated[date | None, Query(alias="from")] = None,
        to: date | None = None,
    ) -> dict[str, Any]:
        """What was used and what it cost, by day, model, cache or tag; `to` is the last day."""
        since, before = period(from_, to)
        rows = await statements.usage(tenant, group_by, since=since, before=before)
        data = [usage_to_wire(row, plan) for row in rows]
        return {"object": "list", "group_by": group_by.value, "currency": plan.currency, "data": data}

    @routes.get("/usage/requests/{request_id}", **documented(RequestLines))
    async def explain(tenant: Tenant, request_id: str) -> dict[str, Any]:
        """A chat's charge, line by line."""
        lines = await statements.explain(tenant, request_id)
        return {
            "object": "list",
            "request_id": request_id,
            "currency": lines[0].currency,
            "amount": plan.exactly(sum(line.amount for line in lines)),
            "data": [line_to_wire(line, plan) for line in lines],
        }

    return routes


def period(first: date | None, last: date | None) -> tuple[int, int | None]:
    """Unix seconds from the first day's beginning to the end of the last, UTC."""
    since = 0 if first is None else _midnight(first)
    return since, None if last is None or last == date.max else _midnight(last + timedelta(days=1))


def usage_to_wire(row: UsageRow, plan: PricePlan) -> dict[str, Any]:
    """Amounts as exact decimals."""
    return {
        "group": row.group,
        "currency": row.currency,
        "requests": row.requests,
        "quantities": {kind.value: quantity for kind, quantity in row.quantities.items()},
        "amounts": {kind.value: plan.exactly(amount) for kind, amount in row.amounts.items()},
        "amount": plan.exactly(row.amount),
        "without_caching": plan.exactly(row.plain),
        "saved": plan.exactly(row.saved),
    }


def line_to_wire(line: Charge, plan: PricePlan) -> dict[str, Any]:
    return {
        "kind": line.kind.value,
        "quantity": line.quantity,
        "unit": plan.exactly(line.unit),
        "amount": plan.exactly(line.amount),
        "without_caching": plan.exactly(line.plain),
        "plan": line.plan,
        "model": line.model,
        "cache_id": line.cache_id,
        "tag": line.tag,
        "created_at": line.created_at,
    }


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())
