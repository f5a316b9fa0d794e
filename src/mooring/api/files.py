"""OpenAI's files with Moonshot's purpose `file-extract` (docs/moonshot-api.md, section 4)."""

from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse

from mooring.api.auth import Tenant
from mooring.api.document import documented
from mooring.api.replies import FileContent, FileDeleted, FileList, FileReply
from mooring.core.context import Page
from mooring.core.errors import InvalidRequest
from mooring.core.file import PURPOSE, File, FileStatus
from mooring.service.files import FileStore

_MAX_FILENAME = 255


def router(store: FileStore) -> APIRouter:
    routes = APIRouter(prefix="/v1/files", tags=["files"])

    @routes.post("", **documented(FileReply))
    async def upload(
        tenant: Tenant, file: UploadFile, purpose: Annotated[str, Form()]
    ) -> dict[str, Any]:
        """Read a document's text. Answers when it has been read; `status` says whether it could be."""
        if purpose != PURPOSE:
            raise InvalidRequest(f"purpose: must be {PURPOSE!r}, not {purpose!r}", param="purpose")
        return file_to_wire(
            await store.upload(tenant, _plain_name(file.filename), file.file, file.size or 0)
        )

    @routes.get("", **documented(FileList))
    async def list_files(
        tenant: Tenant,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
        purpose: str | None = None,
    ) -> dict[str, Any]:
        """The files by creation time."""
        found = await store.list(tenant, Page(limit + 1, order == "desc", after))
        if purpose not in (None, PURPOSE):
            found = []
        data = [file_to_wire(file) for file in found[:limit]]
        ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, "has_more": len(found) > limit} | ids

    @routes.get("/{file_id}", **documented(FileReply))
    async def retrieve(tenant: Tenant, file_id: str) -> dict[str, Any]:
        return file_to_wire(await store.get(tenant, file_id))

    @routes.get("/{file_id}/content", **documented(FileContent))
    async def content(tenant: Tenant, file_id: str) -> FileResponse:
        """The text: JSON with `content`, `file_type`, `filename`, `title` and `type`."""
        return FileResponse(await store.content(tenant, file_id), media_type="application/json")

    @routes.delete("/{file_id}", **documented(FileDeleted))
    async def delete(tenant: Tenant, file_id: str) -> dict[str, Any]:
        await store.delete(tenant, file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def file_to_wire(file: File) -> dict[str, Any]:
    """The file object."""
    assert file.status is not FileStatus.PENDING, "clients never see one"
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": PURPOSE,
        "status": file.status.value,
        "status_details": file.problem or "",
    }


def _plain_name(filename: str | None) -> str:
    """The last part of the client's path; it is shown, and never used as a path."""
    name = PureWindowsPath(PurePosixPath(filename or "").name).name.replace("\0", "")
    if not name or len(name) > _MAX_FILENAME:
        raise InvalidRequest(f"file: needs a name of 1 to {_MAX_FILENAME} characters", param="file")
    return name
