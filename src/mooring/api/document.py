"""The OpenAPI document: FastAPI's own, and what it cannot know."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from mooring.api.replies import ErrorReply

_ERRORS = {
    400: "A field is wrong; `param` names it.",
    401: "The key is missing or wrong.",
    403: "Not from here, or not with this key.",
    404: "There is no such thing, for this tenant.",
    409: "The named cache does not apply to a strict request.",
    429: "Too much at once, or a quota is used up.",
    500: "The server failed; its log says how.",
    503: "The engine has ended and is starting again; `Retry-After` says when to ask again.",
}


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
