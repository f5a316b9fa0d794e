"""`mooring bill` and `mooring top-up`: what tenants owe, and what came in."""

import csv
import json
import sys
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mooring.api.account import period, usage_to_wire
from mooring.app import make_charging
from mooring.commands.registry import ConfigFile, DataDir, on_registry, read_settings
from mooring.core.charge import ChargeKind, Grouping
from mooring.core.errors import InvalidRequest
from mooring.core.tenant import DEFAULT_TENANT
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.ledger import Ledger
from mooring.service.pricing import NANO, PricePlan
from mooring.service.statements import Statements, UsageRow

_KINDS = tuple(kind for kind in ChargeKind if kind is not ChargeKind.TOP_UP)


class Format(StrEnum):
    """How a statement is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def bill(
    tenant: Annotated[str, typer.Option(help="Whose.")] = DEFAULT_TENANT,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, UTC.")
    ] = None,
    to: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day.")] = None,
    by: Annotated[Grouping, typer.Option(help="What is added up.")] = Grouping.DAY,
    format_: Annotated[Format, typer.Option("--format")] = Format.TABLE,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """What a tenant used, what it cost, and what caching saved; also beside a running server.

    What is still kept is reckoned up to now. Plans are the ones that a server has put in force.
    """
    settings = read_settings(config, data_dir)
    since, before = period(_day(from_), _day(to))

    async def read(database: Database) -> tuple[PricePlan, list[UsageRow]]:
        charging = make_charging(database, GroupCommit(database), settings.billing)
        charging.recall()
        rows = await Statements(Ledger(database), charging).usage(tenant, by, since=since, before=before)
        return charging.plan, rows

    plan, rows = on_registry(settings, read)
    _print(plan, rows, tenant, by, format_)


def top_up(
    tenant: Annotated[str, typer.Argument(help="Whose balance.")],
    amount: Annotated[str, typer.Argument(help="In the plan's currency.")],
    reference: Annotated[str, typer.Option(help="Of the payment; the same one counts once.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Add to a prepaid balance."""
    settings = read_settings(config, data_dir)
    try:
        nano = int(Decimal(amount) * NANO)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise InvalidRequest(f"amount: {amount!r} is no amount", param="amount") from error

    async def pay(database: Database) -> str:
        charging = make_charging(database, GroupCommit(database), settings.billing)
        charging.recall()
        await charging.top_up(tenant, nano, reference)
        return charging.plan.show(await charging.balance(tenant))

    typer.echo(f"The balance of {tenant} is {on_registry(settings, pay)}.")


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _print(plan: PricePlan, rows: list[UsageRow], tenant: str, by: Grouping, format_: Format) -> None:
    match format_:
        case Format.JSON:
            data = [usage_to_wire(row, plan) for row in rows]
            statement = {"tenant": tenant, "currency": plan.currency, "data": data}
            typer.echo(json.dumps(statement, indent=2))
        case Format.CSV:
            writer = csv.DictWriter(sys.stdout, _columns(by), lineterminator="\n")
            writer.writeheader()
            writer.writerows(_flat(row, plan, by) for row in rows)
        case Format.TABLE:
            for currency in sorted({row.currency for row in rows} or {plan.currency}):
                mine = [row for row in rows if row.currency == currency]
                _print_table(plan, mine, f"{tenant}, {currency}", by)


def _columns(by: Grouping) -> list[str]:
    return [
        by.value,
        "currency",
        "requests",
        *(kind.value for kind in _KINDS),
        "amount",
        "without_caching",
        "saved",
    ]


def _flat(row: UsageRow, plan: PricePlan, by: Grouping) -> dict[str, Any]:
    amounts = {kind.value: plan.exactly(row.amounts.get(kind, 0)) for kind in _KINDS}
    sums = {"amount": row.amount, "without_caching": row.plain, "saved": row.saved}
    exact = {name: plan.exactly(nano) for name, nano in sums.items()}
    group = {by.value: row.group, "currency": row.currency, "requests": row.requests}
    return group | amounts | exact


def _print_table(plan: PricePlan, rows: list[UsageRow], whose: str, by: Grouping) -> None:
    table = Table(title=f"{whose}; plan now: {plan.name}", show_footer=True)
    total = {"amount": 0, "without_caching": 0, "saved": 0}
    for row in rows:
        total["amount"] += row.amount
        total["without_caching"] += row.plain
        total["saved"] += row.saved
    for column in _columns(by):
        footer = plan.exactly(total[column]) if column in total else ""
        table.add_column(column, footer=footer, justify="left" if column == by.value else "right")
    for row in rows:
        table.add_row(*(str(value) for value in _flat(row, plan, by).values()))
    Console().print(table)
