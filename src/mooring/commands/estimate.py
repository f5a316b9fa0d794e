"""`mooring estimate`: what a workload would cost without caching and with it."""

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mooring.commands.registry import AsJson
from mooring.config import load_config
from mooring.service.estimate import Estimate, Workload, estimate
from mooring.service.pricing import PricePlan, choose_plan, load_plans


def command(
    input_tokens: Annotated[int, typer.Option("--in", help="Prompt tokens of each request.", min=1)],
    output_tokens: Annotated[int, typer.Option("--out", help="Answer tokens of each request.", min=0)],
    identical: Annotated[
        float,
        typer.Option(help="The share of the prompts that is the same, in percent.", min=0, max=100),
    ],
    calls: Annotated[int, typer.Option(help="How many requests.", min=1)],
    minutes: Annotated[int, typer.Option(help="How long the cache is kept.", min=1)],
    plan: Annotated[str, typer.Option(help="A price plan; `list` shows them all.")] = "dollar-2025",
    model: Annotated[str, typer.Option(help="Its name may end with a class: -8k, -32k.")] = "",
    config: Annotated[Path | None, typer.Option(help="A TOML file with further plans.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reckon what a workload costs without caching and with it.

    Moonshot's example: mooring estimate --in 117965 --out 13107 --identical 99.5 --calls 10 --minutes 1
    """
    plans = load_plans(load_config(config).billing.plans)
    if plan == "list":
        for name, each in plans.items():
            typer.echo(f"{name}  {each.currency}")
        return
    chosen = choose_plan(plans, plan, "--plan")
    held = int(Decimal(str(identical)) * input_tokens / 100)
    work = Workload(input_tokens, held, output_tokens, calls, minutes)
    prices = chosen.at(time.time()).prices(model, input_tokens + output_tokens)
    _show(chosen, work, estimate(prices, work), as_json=as_json)


def _show(plan: PricePlan, work: Workload, found: Estimate, *, as_json: bool) -> None:
    if as_json:
        amounts = {
            "without_nano": found.without,
            "with_nano": found.with_cache,
            "creation_nano": found.creation,
            "storage_nano": found.storage,
            "calls_nano": found.calls,
            "saving_percent": round(found.saving_percent, 4),
        }
        typer.echo(json.dumps({"plan": plan.name, "currency": plan.currency} | amounts, indent=2))
        return
    table = Table(title=f"{work.calls} calls, {work.identical_tokens:,} tokens cached, plan {plan.name}")
    table.add_column()
    table.add_column("amount", justify="right")
    table.add_row("without caching", plan.show(found.without))
    table.add_row("  creation", plan.show(found.creation))
    table.add_row("  storage", plan.show(found.storage))
    table.add_row("  calls", plan.show(found.calls))
    table.add_row("with caching", plan.show(found.with_cache))
    table.add_row("saving", f"{found.saving_percent:.2f} %")
    Console().print(table)
