"""A cluster's workers, for whoever runs the server: `/admin/v1/workers`, with the admin key."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from mooring.api.body import StrictRoute
from mooring.api.document import documented
from mooring.engine.workers import WorkerPool, WorkerStatus


class WorkerReply(BaseModel):
    """One worker."""

    object: Literal["worker"]
    url: str
    state: Literal["up", "draining", "down"]
    reason: str
    requests: int
    pinned_prefixes: int


class WorkerList(BaseModel):
    """All workers."""

    object: Literal["list"]
    data: list[WorkerReply]


class DrainBody(BaseModel):
    """What `POST /admin/v1/workers/drain` takes."""

    model_config = ConfigDict(strict=True)

    url: Annotated[str, Field(max_length=2048)]
    """As it is configured."""
    drained: bool = True
    """False: take requests again."""


def router(pool: WorkerPool) -> APIRouter:
    routes = APIRouter(prefix="/admin/v1/workers", tags=["admin"], route_class=StrictRoute)

    @routes.get("", **documented(WorkerList))
    async def list_workers() -> dict[str, Any]:
        return {"object": "list", "data": [worker_to_wire(each) for each in pool.workers()]}

    @routes.post("/drain", **documented(WorkerReply))
    async def drain(body: DrainBody) -> dict[str, Any]:
        """Send a worker no more requests; it ends what it has. This server forgets it when it ends."""
        return worker_to_wire(pool.drain(body.url, drained=body.drained))

    return routes


def worker_to_wire(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "object": "worker",
        "url": worker.url,
        "state": worker.state,
        "reason": worker.reason,
        "requests": worker.requests,
        "pinned_prefixes": worker.pinned_prefixes,
    }
