"""What the OpenAPI document says of replies. Nothing here runs when a request is served."""

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

_ERRORS = {
    400: "A field is wrong; `param` names it.",
    401: "The key is missing or wrong.",
    403: "Not from here, or not with this key.",
    404: "There is no such thing, for this tenant.",
    409: "The named cache does not apply to a strict request.",
    429: "Too much at once, or a quota is used up.",
    500: "The server failed; its log says how.",
}


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorObject(_Reply):
    type: str
    message: str
    code: str | None
    param: str | None


class ErrorReply(_Reply):
    error: ErrorObject


class CacheFailure(_Reply):
    type: str
    message: str


class CacheReply(_Reply):
    id: str
    object: Literal["context_cache_object"]
    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    name: str
    description: str
    metadata: dict[str, str] | None
    created_at: int
    expired_at: int
    status: Literal["pending", "ready", "error", "inactive"]
    tokens: int
    error: CacheFailure | None = None


class CacheList(_Reply):
    object: Literal["list"]
    data: list[CacheReply]


class CacheDeleted(_Reply):
    deleted: Literal[True]
    id: str
    object: Literal["context_cache_object.deleted"]


class TagReply(_Reply):
    tag: str
    cache_id: str
    object: Literal["cache_object.tag"]
    owned_by: str
    created_at: int


class TagList(_Reply):
    object: Literal["list"]
    data: list[TagReply]


class TagDeleted(_Reply):
    deleted: Literal[True]
    object: Literal["cache_object.tag.deleted"]
    tag: str


class FileReply(_Reply):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["file-extract"]
    status: Literal["ok", "error"]
    status_details: str


class FileList(_Reply):
    object: Literal["list"]
    data: list[FileReply]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class FileDeleted(_Reply):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class FileContent(_Reply):
    content: str
    file_type: str
    filename: str
    title: str
    type: Literal["file"]


class ModelReply(_Reply):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Reply):
    object: Literal["list"]
    data: list[ModelReply]


class TokenCount(_Reply):
    total_tokens: int


class TokenEstimate(_Reply):
    data: TokenCount


class BalanceAmounts(_Reply):
    available_balance: float
    voucher_balance: float
    cash_balance: float


class BalanceReply(_Reply):
    code: Literal[0]
    data: BalanceAmounts
    scode: Literal["0x0"]
    status: Literal[True]


class UsageGroup(_Reply):
    group: str
    requests: int
    quantities: dict[str, int]
    amounts: dict[str, str]
    amount: str
    without_caching: str
    saved: str


class UsageList(_Reply):
    object: Literal["list"]
    group_by: Literal["day", "model", "cache", "tag"]
    currency: str
    data: list[UsageGroup]


class RequestLine(_Reply):
    kind: str
    quantity: int
    unit: str
    amount: str
    without_caching: str
    plan: str
    model: str
    cache_id: str | None
    tag: str | None
    created_at: int


class RequestLines(_Reply):
    object: Literal["list"]
    request_id: str
    currency: str
    amount: str
    data: list[RequestLine]


class TopUpReply(_Reply):
    object: Literal["top_up"]
    tenant: str
    amount: str
    reference: str
    currency: str


class UsageReply(_Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    prompt_tokens_details: dict[str, int]


class ChoiceReply(_Reply):
    index: int
    message: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class CompletionReply(_Reply):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChoiceReply]
    usage: UsageReply


class TenantReply(_Reply):
    object: Literal["tenant"]
    id: str
    name: str
    created_at: int
    disabled: bool
    limits: dict[str, int]


class TenantList(_Reply):
    object: Literal["list"]
    data: list[TenantReply]


class KeyReply(_Reply):
    object: Literal["key"]
    id: str
    tenant: str
    name: str
    hint: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class NewKeyReply(KeyReply):
    secret: str


class KeyList(_Reply):
    object: Literal["list"]
    data: list[KeyReply]


class HealthReply(_Reply):
    status: Literal["ok", "failed"]
    reason: str | None = None


def documented(reply: type[BaseModel], *, conflict: bool = False) -> dict[str, Any]:
    """Arguments of a route that say what it replies, without checking each reply against it."""
    statuses = [status for status in _ERRORS if status != 409 or conflict]
    errors = {status: {"model": ErrorReply, "description": _ERRORS[status]} for status in statuses}
    return {"response_model": None, "responses": {200: {"model": reply}, **errors}}


CACHE_HEADERS: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[ -~]*$"},
            "description": description,
        }
        for name, description in (
            ("X-Msh-Context-Cache", "The id of a cache whose messages and tools the request repeats."),
            ("X-Msh-Context-Cache-DryRun", "1: only say whether the cache would apply."),
            ("X-Msh-Context-Cache-Reset-TTL", "Seconds from now at which the cache is to end."),
            ("X-Context-Cache-Strict", "1: a 409 instead of an answer without the cache."),
        )
    ]
}
"""The header form of naming a cache (docs/moonshot-api.md, section 3)."""

METADATA_FILTER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            "description": "`metadata[key]=value`; all must match.",
        }
    ]
}


def describe(app: FastAPI) -> None:
    """Make the OpenAPI document: FastAPI's, with the key, and without its 422, which is a 400 here."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            components = document.setdefault("components", {})
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{}, {"key": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
