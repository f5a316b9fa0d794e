"""Moonshot's context caching: `/v1/caching` (docs/moonshot-api.md, sections 1 and 2)."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from mooring.api.auth import Tenant
from mooring.api.body import StrictRoute
from mooring.api.document import METADATA_FILTER, documented
from mooring.api.messages import ChatMessage, ToolDeclaration
from mooring.api.replies import CacheDeleted, CacheList, CacheReply
from mooring.core.context import CacheObject, NewCache, Page, Status
from mooring.core.errors import InvalidRequest
from mooring.service.contexts import Contexts

_FAR_FUTURE = 1 << 40  # seconds; beyond it lies no date

MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Seconds = Annotated[int, Field(ge=1, le=_FAR_FUTURE)]
Moment = Annotated[int, Field(ge=0, le=_FAR_FUTURE)]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$")]


class CreateBody(BaseModel):
    """What `POST /v1/caching` takes."""

    model_config = ConfigDict(strict=True)

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[ToolDeclaration] | None = None
    name: Annotated[str, Field(max_length=256)] = ""
    description: Annotated[str, Field(max_length=512)] = ""
    metadata: Metadata | None = None
    ttl: Seconds | None = None
    expired_at: Moment | None = None
    tags: Annotated[list[TagName], Field(max_length=64)] | None = None

    def to_new_cache(self) -> NewCache:
        """Raises InvalidRequest."""
        for index, message in enumerate(self.messages):
            if message.role == "cache":
                raise InvalidRequest(
                    f"messages[{index}].role: a cache cannot contain another one",
                    param=f"messages[{index}].role",
                )
        return NewCache(
            model=self.model,
            messages=tuple(message.as_sent() for message in self.messages),
            tools=tuple(tool.as_sent() for tool in self.tools or []),
            name=self.name,
            description=self.description,
            metadata=self.metadata,
            ttl_s=self.ttl,
            expired_at=self.expired_at,
            tags=tuple(self.tags or ()),
        )


class UpdateBody(BaseModel):
    """What `PUT /v1/caching/{id}` takes; what is left out stays."""

    model_config = ConfigDict(strict=True)

    metadata: Metadata | None = None
    ttl: Seconds | None = None
    expired_at: Moment | None = None


def router(contexts: Contexts) -> APIRouter:
    routes = APIRouter(prefix="/v1/caching", tags=["caching"], route_class=StrictRoute)

    @routes.post("", **documented(CacheReply))
    async def create(tenant: Tenant, body: CreateBody) -> dict[str, Any]:
        """Keep messages (and tools) as a cache. Answers at once, `pending`; never waits."""
        return cache_to_wire(await contexts.create(tenant, body.to_new_cache()))

    @routes.get("", **documented(CacheList), openapi_extra=METADATA_FILTER)
    async def list_caches(
        tenant: Tenant,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> dict[str, Any]:
        """The caches by creation time; `metadata[key]=value`, repeatable, filters."""
        metadata = tuple(
            (key[len("metadata[") : -1], value)
            for key, value in request.query_params.multi_items()
            if key.startswith("metadata[") and key.endswith("]")
        )
        page = Page(limit, order == "desc", after, before, metadata)
        found = await contexts.list(tenant, page)
        return {"object": "list", "data": [cache_to_wire(cache) for cache in found]}

    @routes.get("/{cache_id}", **documented(CacheReply))
    async def retrieve(tenant: Tenant, cache_id: str) -> dict[str, Any]:
        return cache_to_wire(await contexts.get(tenant, cache_id))

    @routes.put("/{cache_id}", **documented(CacheReply))
    async def update(tenant: Tenant, cache_id: str, body: UpdateBody) -> dict[str, Any]:
        """Change metadata or the end; the cache is `pending` and then `ready` again."""
        changed = await contexts.update(
            tenant,
            cache_id,
            metadata=body.metadata,
            ttl_s=body.ttl,
            expired_at=body.expired_at,
        )
        return cache_to_wire(changed)

    @routes.delete("/{cache_id}", **documented(CacheDeleted))
    async def delete(tenant: Tenant, cache_id: str) -> dict[str, Any]:
        await contexts.delete(tenant, cache_id)
        return {"deleted": True, "id": cache_id, "object": "context_cache_object.deleted"}

    return routes


def cache_to_wire(cache: CacheObject) -> dict[str, Any]:
    """The cache object (docs/moonshot-api.md, section 1)."""
    wire: dict[str, Any] = {
        "id": cache.id,
        "object": "context_cache_object",
        "model": cache.model,
        "messages": list(cache.messages),
        "tools": list(cache.tools),
        "name": cache.name,
        "description": cache.description,
        "metadata": cache.metadata,
        "created_at": cache.created_at,
        "expired_at": cache.expired_at,
        "status": cache.status.value,
        "tokens": cache.tokens,
    }
    if cache.status is Status.ERROR and cache.failure is not None:
        wire["error"] = {"type": cache.failure.type, "message": cache.failure.message}
    return wire
