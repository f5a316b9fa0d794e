"""Every error as the one error object (docs/moonshot-api.md, section 5), by one table."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mooring.core import errors
from mooring.core.miss import Miss, MissReason

_log = logging.getLogger("mooring.api")

# The first class that an error is an instance of decides: (status, type, code).
_TABLE: list[tuple[type[Exception], tuple[int, str, str | None]]] = [
    (errors.PromptTooLong, (400, "invalid_request_error", "context_length_exceeded")),
    (errors.ContextExpired, (400, "invalid_request_error", "cache_expired")),
    (errors.ContextFailed, (400, "invalid_request_error", "cache_failed")),
    (errors.ContextMissed, (409, "invalid_request_error", "cache_miss")),
    (errors.InvalidRequest, (400, "invalid_request_error", None)),
    (errors.NotAuthenticated, (401, "invalid_authentication_error", None)),
    (errors.AuthenticationFailed, (401, "incorrect_api_key_error", "invalid_api_key")),
    (errors.PermissionDenied, (403, "permission_denied_error", None)),
    (errors.ContextNotFound, (404, "resource_not_found_error", "cache_not_found")),
    (errors.FileNotFound, (404, "resource_not_found_error", "file_not_found")),
    (errors.ModelNotFound, (404, "resource_not_found_error", "model_not_found")),
    (errors.NotFound, (404, "resource_not_found_error", None)),
    (errors.RateLimited, (429, "rate_limit_reached_error", "rate_limit_exceeded")),
    (errors.QuotaExceeded, (429, "exceeded_current_quota_error", "insufficient_quota")),
    (errors.StorageFull, (429, "engine_overloaded_error", "storage_full")),
    (errors.Overloaded, (429, "engine_overloaded_error", None)),
    (errors.EngineLost, (503, "server_error", "engine_restarted")),
    (errors.EngineUnavailable, (503, "server_error", "engine_unavailable")),
    (errors.RegistryBusy, (503, "server_error", "registry_unavailable")),
    (errors.RegistryUnavailable, (503, "server_error", "registry_unavailable")),
    (Exception, (500, "server_error", None)),
]
MISS_HEADER = "X-Context-Cache-Miss"
_RETRY_AFTER_S = {
    "storage_full": "30",
    "engine_restarted": "1",
    "engine_unavailable": "10",
    "registry_unavailable": "5",
    None: "1",
}
_WAITING_HELPS = (429, 503)
"""By code; there is no waiting for a quota."""
_HTTP_TYPES = {404: "resource_not_found_error", 405: "invalid_request_error"}


def install(app: FastAPI) -> None:
    """Give every error, FastAPI's own included, the same shape."""
    app.add_exception_handler(errors.MooringError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_bad_shape)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_surprise)


def error_object(error: Exception) -> dict[str, Any]:
    """The body for an error, also sent inside a stream that has begun."""
    _status, kind, code = _row(error)
    if isinstance(error, errors.MooringError):
        return _body(kind, error.message, code, error.param)
    return _body(kind, "the server made a mistake; its log has the details", code, None)


def status_of(error: Exception) -> int:
    """The HTTP status for an error."""
    return _row(error)[0]


def _row(error: Exception) -> tuple[int, str, str | None]:
    return next(row for kind, row in _TABLE if isinstance(error, kind))


def _body(kind: str, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "code": code, "param": param}}


async def _on_our_error(_: Request, error: Exception) -> JSONResponse:
    return reply_to(error)


def reply_to(error: Exception) -> JSONResponse:
    """The whole reply, headers included."""
    status, _kind, code = _row(error)
    headers = {}
    if status in _WAITING_HELPS and code in _RETRY_AFTER_S:
        headers["Retry-After"] = _RETRY_AFTER_S[code]
    if isinstance(error, errors.RateLimited):
        headers |= error.headers | {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if (miss := _miss_of(error)) is not None:
        headers[MISS_HEADER] = str(miss)
    return JSONResponse(error_object(error), status, headers)


def _miss_of(error: Exception) -> Miss | None:
    match error:
        case errors.ContextMissed():
            return error.miss
        case errors.ContextNotFound():
            return Miss(MissReason.NOT_FOUND)
        case errors.ContextExpired():
            return Miss(MissReason.EXPIRED)
        case _:
            return None


async def _on_bad_shape(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's 422, as the 400 that this API's clients expect."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        message = f"the body is not JSON: {fault.get('ctx', {}).get('error', fault['msg'])}"
        return JSONResponse(_body("invalid_request_error", message, None, None), 400)
    if fault["loc"] == ("body",) and "json" not in request.headers.get("Content-Type", ""):
        message = "send the body as JSON, with the header Content-Type: application/json"
        return JSONResponse(_body("invalid_request_error", message, None, None), 400)
    field = _field(fault["loc"])
    where = f"{field}: " if field else "the body: "
    return JSONResponse(_body("invalid_request_error", where + fault["msg"], None, field or None), 400)


def _field(location: tuple[int | str, ...]) -> str:
    """`messages[2].content` from ("body", "messages", 2, "content", <pydantic's branch>)."""
    field = ""
    for step in location[1:]:
        if isinstance(step, int):
            field += f"[{step}]"
        elif step.isidentifier() and step not in _UNION_BRANCHES:
            field += f".{step}" if field else step
    return field


_UNION_BRANCHES = {"str", "list", "int", "bool", "float", "dict"}


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _HTTP_TYPES.get(error.status_code, "invalid_request_error")
    message = error.detail
    if error.status_code in _HTTP_TYPES:
        message = f"{request.method} {request.url.path} is not served here: {error.detail}"
    return JSONResponse(_body(kind, message, None, None), error.status_code, error.headers)


async def _on_surprise(request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed path=%s", request.url.path, exc_info=error)
    return JSONResponse(error_object(error), 500)
