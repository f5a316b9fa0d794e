"""Commands work on a server's registry, in its data directory or in PostgreSQL, also while it runs."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from mooring.config import Config, load_config
from mooring.registry.database import Database, open_database
from mooring.registry.tenants import Tenants
from mooring.service.tenants import Tenancy

T = TypeVar("T")
DataDir = Annotated[Path | None, typer.Option(help="The server's. [the user's data directory]")]
ConfigFile = Annotated[Path | None, typer.Option(help="The server's TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def on_registry(config: Config, work: Callable[[Database], Awaitable[T]]) -> T:
    """The outcome of some work with a server's registry.

    Raises:
        MooringError: the registry cannot be used, or the work is refused.
    """
    folder = config.server.data_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(config.registry, folder)

    async def run() -> T:
        return await work(database)

    try:
        return asyncio.run(run())
    finally:
        database.close()


def on_tenancy(config: Path | None, data_dir: Path | None, work: Callable[[Tenancy], Awaitable[T]]) -> T:
    """The outcome of some work with a server's tenants. Raises as `on_registry` does."""
    settings = read_settings(config, data_dir)
    return on_registry(settings, lambda database: work(Tenancy(Tenants(database))))


def read_settings(config: Path | None, data_dir: Path | None) -> Config:
    """The configuration of the server whose registry is meant. Raises StartRefused."""
    registry = {"url": os.environ.get("MOORING_REGISTRY_URL")}
    return load_config(config, {"server": {"data_dir": data_dir}, "registry": registry})


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
