"""Documents that clients upload to get their text back (docs/moonshot-api.md, section 4)."""

import asyncio
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mooring.config import FilesConfig
from mooring.core.context import Page
from mooring.core.errors import FileNotFound, InvalidRequest, QuotaExceeded, StorageFull
from mooring.core.file import File, FileStatus, new_file_id
from mooring.extraction.extractor import Extracted, Extractor
from mooring.registry.files import Files

_log = logging.getLogger("mooring.files")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_UPLOAD_S = 3600
_FAR_FUTURE = 1 << 62
_UPLOAD, _UNFINISHED, _TEXT = ".upload", ".unfinished", ".json"


class FileStore:
    """All tenants' files. The text is kept; the document itself is not, once it has been read.

    A row is `pending` from before the first byte is written until the text is durable, so a crash leaves
    a row that the next start drops, with whatever was written for it.
    """

    def __init__(
        self,
        files: Files,
        extractor: Extractor,
        folder: Path,
        config: FilesConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._extractor = extractor
        self._folder = folder
        self._config = config
        self._clock = clock

    async def resume(self) -> None:
        """After a start: forget unfinished uploads, and bytes that no file has.

        Of what others may be at, only what is too old to be under way.
        """
        if self._files.are_shared and self._config.folder is None:
            _log.warning("files.folder is not set: texts are served by the server that read them")
        now = int(self._clock())
        begun_before = now - _LONGEST_UPLOAD_S if self._files.are_shared else _FAR_FUTURE
        known = await asyncio.to_thread(self._files.drop_pending, begun_before)
        await asyncio.to_thread(_clear, self._folder, known, begun_before)

    async def upload(self, tenant: str, filename: str, document: BinaryIO, size: int) -> File:
        """Keep a document's text; whether it has any, the file's status says.

        Raises:
            InvalidRequest: it is larger than a file may be.
            QuotaExceeded: the tenant has as many files, or as many bytes, as it may have.
            StorageFull: no room on disk; nothing of it remains.
            Overloaded: too many documents are waiting to be read.
        """
        if size > self._config.max_file_bytes:
            raise InvalidRequest(
                f"file: {size} bytes are more than the {self._config.max_file_bytes} that a file may"
                " have: split it",
                param="file",
            )
        file = File(new_file_id(), tenant, filename, size, int(self._clock()), FileStatus.PENDING)
        await self._reserve(file)
        try:
            extracted = await self._extract(file, document)
            status = FileStatus.OK if extracted.problem is None else FileStatus.ERROR
            settle = partial(self._files.settle, file.id, status, extracted.problem)
            await asyncio.to_thread(settle)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._forget, file.id))
            raise
        _log.info("file %s id=%s tenant=%s bytes=%d", status, file.id, tenant, size)
        return File(file.id, tenant, filename, size, file.created_at, status, extracted.problem)

    async def get(self, tenant: str, file_id: str) -> File:
        """Raises FileNotFound."""
        file = await asyncio.to_thread(self._files.get, tenant, file_id)
        if file is None:
            raise FileNotFound(file_id)
        return file

    async def list(self, tenant: str, page: Page) -> Sequence[File]:
        """Raises FileNotFound for a page beside a file that is not there."""
        found = await asyncio.to_thread(self._files.list, tenant, page)
        if found is None:
            raise FileNotFound(page.after or page.before or "")
        return found

    async def content(self, tenant: str, file_id: str) -> Path:
        """Where a file's text lies, as JSON.

        Raises:
            FileNotFound: no such file, or its text is in a folder that this server does not share.
            InvalidRequest: it has no text.
        """
        file = await self.get(tenant, file_id)
        if file.status is not FileStatus.OK:
            raise InvalidRequest(
                f"file_id: the file {file_id} could not be read: {file.problem}", param="file_id"
            )
        path = self._path(file_id, _TEXT)
        if not await asyncio.to_thread(path.exists):
            _log.error("file without its text id=%s folder=%s", file_id, self._folder)
            raise FileNotFound(file_id)
        return path

    async def delete(self, tenant: str, file_id: str) -> None:
        """Raises FileNotFound."""
        if not await asyncio.to_thread(self._files.delete, tenant, file_id):
            raise FileNotFound(file_id)
        await asyncio.to_thread(self._path(file_id, _TEXT).unlink, missing_ok=True)
        _log.info("file deleted id=%s tenant=%s", file_id, tenant)

    async def _reserve(self, file: File) -> None:
        limits = {"max_files": self._config.max_files, "max_total_bytes": self._config.max_total_bytes}
        used = await asyncio.to_thread(partial(self._files.reserve, file, **limits))
        if used is not None:
            count, size = used
            raise QuotaExceeded(
                f"file: {count} files of {size} bytes are kept already, of at most"
                f" {self._config.max_files} files and {self._config.max_total_bytes} bytes:"
                " delete some",
                param="file",
            )

    async def _extract(self, file: File, document: BinaryIO) -> Extracted:
        upload, text = self._path(file.id, _UPLOAD), self._path(file.id, _UNFINISHED)
        try:
            await asyncio.to_thread(_save, document, upload)
            extracted = await self._extractor.extract(upload, text, file.filename)
            if extracted.problem is None:
                await asyncio.to_thread(_publish, text, self._path(file.id, _TEXT))
            return extracted
        finally:
            upload.unlink(missing_ok=True)
            text.unlink(missing_ok=True)

    def _forget(self, file_id: str) -> None:
        self._files.drop(file_id)
        self._path(file_id, _TEXT).unlink(missing_ok=True)

    def _path(self, file_id: str, suffix: str) -> Path:
        return self._folder / f"{file_id}{suffix}"


def _save(document: BinaryIO, path: Path) -> None:
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(document, copy, 1 << 20)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull("no room on disk for the file: delete files, or free space") from error
        raise


def _publish(unfinished: Path, path: Path) -> None:
    """The text has been synced; its name is now."""
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _clear(folder: Path, known: set[str], begun_before: int) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        unknown = path.suffix != _TEXT or path.stem not in known
        with suppress(FileNotFoundError):  # somebody else was faster
            if unknown and path.stat().st_mtime < begun_before:
                path.unlink()
