"""`mooring key`: what tenants show to be let in."""

from typing import Annotated

import typer

from mooring.api.admin import key_to_wire
from mooring.commands.registry import AsJson, ConfigFile, DataDir, on_tenancy, show
from mooring.core.tenant import DEFAULT_TENANT

cli = typer.Typer(
    name="key",
    help="Keys that clients send as `Authorization: Bearer <key>`. With the first one, a server that let"
    " everybody in asks for keys, within seconds.",
    no_args_is_help=True,
)
_COLUMNS = ("id", "tenant", "name", "hint", "created_at", "expires_at", "revoked_at")
_DAY_S = 86_400


@cli.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Whom it speaks for.")] = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="For people: who or what uses it.")] = "",
    days: Annotated[float | None, typer.Option(help="When it ends. [never]", min=0)] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is printed this once and kept nowhere."""
    ttl_s = None if days is None else max(1, int(days * _DAY_S))
    made = on_tenancy(config, data_dir, lambda tenancy: tenancy.issue_key(tenant, name, ttl_s))
    if as_json:
        show([key_to_wire(made.key) | {"secret": made.secret}], _COLUMNS, as_json=True)
    else:
        typer.echo(f"{made.key.id} of {tenant}; shown this once:", err=True)
        typer.echo(made.secret)


@cli.command(name="list")
def list_(
    tenant: Annotated[str, typer.Argument(help="Whose.")] = DEFAULT_TENANT,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """A tenant's keys, without their secrets."""
    found = on_tenancy(config, data_dir, lambda tenancy: tenancy.keys(tenant))
    show([key_to_wire(key) for key in found], _COLUMNS, as_json=as_json)


@cli.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, as `mooring key list` shows it.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a key from now on, within seconds on a running server."""
    revoked = on_tenancy(config, data_dir, lambda tenancy: tenancy.revoke_key(key_id))
    show([key_to_wire(revoked)], _COLUMNS, as_json=as_json)
