"""Tenants and keys for whoever runs the server: `/admin/v1`, with the admin key."""

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from mooring.api.body import StrictRoute
from mooring.api.document import documented
from mooring.api.replies import KeyList, KeyReply, NewKeyReply, TenantList, TenantReply, TopUpReply
from mooring.core.tenant import Key, Tenant
from mooring.service.charging import Charging
from mooring.service.pricing import NANO
from mooring.service.tenants import Tenancy

_MAX_TTL_S = 1 << 40

Name = Annotated[str, Field(max_length=256)]


class TenantBody(BaseModel):
    """What `POST /admin/v1/tenants` takes."""

    model_config = ConfigDict(strict=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    name: Name = ""


class TenantChange(BaseModel):
    """What `PATCH /admin/v1/tenants/{tenant_id}` takes; what is left out stays."""

    model_config = ConfigDict(strict=True)

    name: Name | None = None
    disabled: bool | None = None
    limits: dict[str, Annotated[int, Field(ge=0, lt=1 << 53)]] | None = None
    """By the names of `[limits]` in the configuration; 0 lifts a configured one."""


class KeyBody(BaseModel):
    """What `POST /admin/v1/tenants/{tenant_id}/keys` takes."""

    model_config = ConfigDict(strict=True)

    name: Name = ""
    ttl: Annotated[int, Field(ge=1, le=_MAX_TTL_S)] | None = None
    """Seconds; without it the key has no end."""


class TopUpBody(BaseModel):
    """What `POST /admin/v1/tenants/{tenant_id}/top-ups` takes."""

    model_config = ConfigDict(strict=True)

    amount: Annotated[str, Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
    """In the plan's currency, as a decimal."""
    reference: Annotated[str, Field(min_length=1, max_length=256)]
    """Of the payment; the same one counts once."""


def router(tenancy: Tenancy, charging: Charging) -> APIRouter:
    routes = APIRouter(prefix="/admin/v1/tenants", tags=["admin"], route_class=StrictRoute)

    @routes.post("", **documented(TenantReply))
    async def create(body: TenantBody) -> dict[str, Any]:
        return tenant_to_wire(await tenancy.create(body.id, body.name))

    @routes.get("", **documented(TenantList))
    async def list_tenants() -> dict[str, Any]:
        return {"object": "list", "data": [tenant_to_wire(each) for each in await tenancy.list()]}

    @routes.get("/{tenant_id}", **documented(TenantReply))
    async def retrieve(tenant_id: str) -> dict[str, Any]:
        return tenant_to_wire(await tenancy.get(tenant_id))

    @routes.patch("/{tenant_id}", **documented(TenantReply))
    async def update(tenant_id: str, body: TenantChange) -> dict[str, Any]:
        """Rename it, or refuse its keys from now on; what it owns stays."""
        changed = await tenancy.update(
            tenant_id, name=body.name, disabled=body.disabled, limits=body.limits
        )
        return tenant_to_wire(changed)

    @routes.post("/{tenant_id}/keys", **documented(NewKeyReply))
    async def issue(tenant_id: str, body: KeyBody) -> dict[str, Any]:
        """Make a key. `secret` is shown this once."""
        made = await tenancy.issue_key(tenant_id, body.name, body.ttl)
        return key_to_wire(made.key) | {"secret": made.secret}

    @routes.get("/{tenant_id}/keys", **documented(KeyList))
    async def list_keys(tenant_id: str) -> dict[str, Any]:
        return {"object": "list", "data": [key_to_wire(key) for key in await tenancy.keys(tenant_id)]}

    @routes.delete("/{tenant_id}/keys/{key_id}", **documented(KeyReply))
    async def revoke(tenant_id: str, key_id: str) -> dict[str, Any]:
        """Refuse a key from now on; it stays in the list."""
        return key_to_wire(await tenancy.revoke_key(key_id, tenant_id))

    @routes.post("/{tenant_id}/top-ups", **documented(TopUpReply))
    async def top_up(tenant_id: str, body: TopUpBody) -> dict[str, Any]:
        """Add to a prepaid balance."""
        await tenancy.get(tenant_id)
        await charging.top_up(tenant_id, int(Decimal(body.amount) * NANO), body.reference)
        return {
            "object": "top_up",
            "tenant": tenant_id,
            "amount": body.amount,
            "reference": body.reference,
            "currency": charging.plan.currency,
        }

    return routes


def tenant_to_wire(tenant: Tenant) -> dict[str, Any]:
    return {
        "object": "tenant",
        "id": tenant.id,
        "name": tenant.name,
        "created_at": tenant.created_at,
        "disabled": tenant.disabled,
        "limits": dict(tenant.limits),
    }


def key_to_wire(key: Key) -> dict[str, Any]:
    """Without the secret, which nobody has any more."""
    return {
        "object": "key",
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "hint": key.hint,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
