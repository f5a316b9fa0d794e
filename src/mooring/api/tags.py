"""Moonshot's tags: `/v1/caching/refs/tags` (docs/moonshot-api.md, section 2)."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from mooring.api.auth import Tenant
from mooring.api.body import StrictRoute
from mooring.api.caching import TagName, cache_to_wire
from mooring.api.document import documented
from mooring.api.replies import CacheReply, TagDeleted, TagList, TagReply
from mooring.core.context import Page, Tag
from mooring.service.contexts import Contexts
from mooring.service.tagging import Tagging


class BindBody(BaseModel):
    """What `POST /v1/caching/refs/tags` takes."""

    model_config = ConfigDict(strict=True)

    tag: TagName
    cache_id: str


def router(tagging: Tagging, contexts: Contexts) -> APIRouter:
    routes = APIRouter(prefix="/v1/caching/refs/tags", tags=["tags"], route_class=StrictRoute)

    @routes.post("", **documented(TagReply))
    async def bind(tenant: Tenant, body: BindBody) -> dict[str, Any]:
        """Bind a tag to a cache; one that exists is bound anew."""
        return tag_to_wire(await tagging.bind(tenant, body.tag, body.cache_id))

    @routes.get("", **documented(TagList))
    async def list_tags(
        tenant: Tenant,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> dict[str, Any]:
        """The tags by creation time; `after` and `before` are tag names."""
        found = await tagging.list(tenant, Page(limit, order == "desc", after, before))
        return {"object": "list", "data": [tag_to_wire(tag) for tag in found]}

    @routes.get("/{tag}", **documented(TagReply))
    async def retrieve(tenant: Tenant, tag: str) -> dict[str, Any]:
        return tag_to_wire(await tagging.get(tenant, tag))

    @routes.get("/{tag}/content", **documented(CacheReply))
    async def content(tenant: Tenant, tag: str) -> dict[str, Any]:
        """The cache that the tag is bound to."""
        bound = await tagging.get(tenant, tag)
        return cache_to_wire(await contexts.get(tenant, bound.cache_id))

    @routes.delete("/{tag}", **documented(TagDeleted))
    async def delete(tenant: Tenant, tag: str) -> dict[str, Any]:
        await tagging.delete(tenant, tag)
        return {"deleted": True, "object": "cache_object.tag.deleted", "tag": tag}

    return routes


def tag_to_wire(tag: Tag) -> dict[str, Any]:
    """The tag object."""
    return {
        "tag": tag.name,
        "cache_id": tag.cache_id,
        "object": "cache_object.tag",
        "owned_by": tag.tenant,
        "created_at": tag.created_at,
    }
