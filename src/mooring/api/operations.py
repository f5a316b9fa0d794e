"""For whoever runs the server: is it well, and what does it do."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mooring.api.replies import HealthReply
from mooring.engine.interface import Engine
from mooring.telemetry import ServerMetrics


def router(engine: Engine, metrics: ServerMetrics) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.get(
        "/health",
        response_model=None,
        responses={200: {"model": HealthReply}, 503: {"model": HealthReply}},
    )
    async def health() -> JSONResponse:
        """200 while the engine can serve or is starting again, 503 when it cannot be started."""
        failure = engine.failure
        body: dict[str, Any] = {"status": "ok" if failure is None else "failed"}
        if failure is not None:
            body["reason"] = failure
        return JSONResponse(body, 200 if failure is None else 503)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """All counters, in Prometheus' text format."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    return routes
