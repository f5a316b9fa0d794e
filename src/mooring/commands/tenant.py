"""`mooring tenant`: whom the server serves."""

from typing import Annotated

import typer

from mooring.api.admin import tenant_to_wire
from mooring.commands.registry import AsJson, ConfigFile, DataDir, on_tenancy, show
from mooring.core.errors import InvalidRequest

cli = typer.Typer(
    name="tenant",
    help="Teams or customers: each sees its own caches, tags and files, and nothing of the others.",
    no_args_is_help=True,
)
_COLUMNS = ("id", "name", "created_at", "disabled", "limits")
TenantId = Annotated[str, typer.Argument(help="Its id: a-z, 0-9, _ and -.")]


@cli.command(epilog="Next: [cyan]mooring key create ID[/].")
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant."""
    made = on_tenancy(config, data_dir, lambda tenancy: tenancy.create(tenant, name))
    show([tenant_to_wire(made)], _COLUMNS, as_json=as_json)


@cli.command(name="list")
def list_(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """All tenants."""
    found = on_tenancy(config, data_dir, lambda tenancy: tenancy.list())
    show([tenant_to_wire(each) for each in found], _COLUMNS, as_json=as_json)


@cli.command()
def limit(
    tenant: TenantId,
    limits: Annotated[list[str], typer.Argument(help="NAME=NUMBER; 0 lifts a configured one.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant limits of its own.

    There are concurrent_requests, requests_per_minute, tokens_per_minute, tokens_per_day, cached_tokens,
    cached_bytes and context_tokens.

    Example: mooring tenant limit north requests_per_minute=60 cached_tokens=1000000
    """
    own = dict(_read_limit(each) for each in limits)
    changed = on_tenancy(config, data_dir, lambda tenancy: tenancy.update(tenant, limits=own))
    show([tenant_to_wire(changed)], _COLUMNS, as_json=as_json)


def _read_limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not (number.isascii() and number.isdecimal()):
        raise InvalidRequest(f"{text!r} must read NAME=NUMBER")
    return name, int(number)


@cli.command()
def disable(
    tenant: TenantId,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a tenant's keys, within seconds on a running server; what it owns stays."""
    changed = on_tenancy(config, data_dir, lambda tenancy: tenancy.update(tenant, disabled=True))
    show([tenant_to_wire(changed)], _COLUMNS, as_json=as_json)


@cli.command()
def enable(
    tenant: TenantId,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a tenant's keys again."""
    changed = on_tenancy(config, data_dir, lambda tenancy: tenancy.update(tenant, disabled=False))
    show([tenant_to_wire(changed)], _COLUMNS, as_json=as_json)
