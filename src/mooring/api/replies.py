"""The replies' shapes, for the OpenAPI document. Nothing here runs when a request is served."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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
    currency: str
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
