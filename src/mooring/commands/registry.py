"""Commands work on the data directory's registry, also while a server is running on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from mooring.config import Config, load_config
from mooring.registry.database import Database
from mooring.registry.tenants import Tenants
from mooring.service.tenants import Tenancy

T = TypeVar("T")
DataDir = Annotated[Path | None, typer.Option(help="The server's. [the user's data directory]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def on_registry(config: Config, work: Callable[[Database], Awaitable[T]]) -> T:
    """The outcome of some work with a data directory's registry.

    Raises:
        MooringError: the registry cannot be used, or the work is refused.
    """
    folder = config.server.data_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(folder / "registry.sqlite3")

    async def run() -> T:
        return await work(database)

    try:
        return asyncio.run(run())
    finally:
        database.close()


def on_tenancy(data_dir: Path | None, work: Callable[[Tenancy], Awaitable[T]]) -> T:
    """The outcome of some work with the tenants of a data directory. Raises as `on_registry` does."""
    config = load_config(None, {"server": {"data_dir": data_dir}})
    return on_registry(config, lambda database: work(Tenancy(Tenants(database))))


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a list as a table, or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console().print(table)


def _cell(value: object) -> str:
    return "" if value is None else str(value)
