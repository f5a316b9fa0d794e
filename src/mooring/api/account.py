"""What a tenant has (docs/moonshot-api.md, section 4)."""

from typing import Any

from fastapi import APIRouter

from mooring.api.auth import Tenant
from mooring.api.replies import BalanceReply, documented

_UNCHARGED = 1_000_000.0
"""Nothing is charged here, so the balance is a constant that no client takes for used up."""


def router() -> APIRouter:
    routes = APIRouter(prefix="/v1/users/me", tags=["account"])

    @routes.get("/balance", **documented(BalanceReply))
    async def balance(_: Tenant) -> dict[str, Any]:
        """A constant: this version charges nothing."""
        amounts = {
            "available_balance": _UNCHARGED,
            "voucher_balance": _UNCHARGED,
            "cash_balance": 0.0,
        }
        return {"code": 0, "data": amounts, "scode": "0x0", "status": True}

    return routes
