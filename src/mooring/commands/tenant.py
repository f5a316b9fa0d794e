"""`mooring tenant`: whom the server serves."""

from typing import Annotated

import typer

from mooring.api.admin import tenant_to_wire
from mooring.commands.registry import AsJson, DataDir, on_tenancy, show

cli = typer.Typer(
    name="tenant",
    help="Teams or customers: each sees its own caches, tags and files, and nothing of the others.",
    no_args_is_help=True,
)
_COLUMNS = ("id", "name", "created_at", "disabled")
TenantId = Annotated[str, typer.Argument(help="Its id: a-z, 0-9, _ and -.")]


@cli.command(epilog="Next: [cyan]mooring key create ID[/].")
def create(
    tenant: TenantId,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant."""
    made = on_tenancy(data_dir, lambda tenancy: tenancy.create(tenant, name))
    show([tenant_to_wire(made)], _COLUMNS, as_json=as_json)


@cli.command(name="list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """All tenants."""
    found = on_tenancy(data_dir, lambda tenancy: tenancy.list())
    show([tenant_to_wire(each) for each in found], _COLUMNS, as_json=as_json)


@cli.command()
def disable(tenant: TenantId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Refuse a tenant's keys, within seconds on a running server; what it owns stays."""
    changed = on_tenancy(data_dir, lambda tenancy: tenancy.update(tenant, disabled=True))
    show([tenant_to_wire(changed)], _COLUMNS, as_json=as_json)


@cli.command()
def enable(tenant: TenantId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take a tenant's keys again."""
    changed = on_tenancy(data_dir, lambda tenancy: tenancy.update(tenant, disabled=False))
    show([tenant_to_wire(changed)], _COLUMNS, as_json=as_json)
