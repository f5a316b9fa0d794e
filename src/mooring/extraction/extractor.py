"""The server's side: a child process for each document, a few at a time, ended if they take too long."""

import asyncio
import errno
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mooring.config import FilesConfig
from mooring.core.errors import Overloaded, StorageFull

_log = logging.getLogger("mooring.extraction")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_MAX_WAITING = 64


@dataclass(frozen=True)
class Extracted:
    """What became of a document."""

    problem: str | None
    """Why there is no text, or None when it has been written."""


class Extractor:
    """Turns documents into text. Used in one event loop."""

    def __init__(self, config: FilesConfig) -> None:
        self._config = config
        self._room = asyncio.Semaphore(config.extractions)
        self._waiting = 0

    async def extract(self, source: Path, target: Path, filename: str) -> Extracted:
        """Write the text of `source` to `target`, as the JSON that clients get.

        `filename` says at most which kind of text it is; it is no path to anything here.

        Raises:
            StorageFull: the disk cannot hold the text.
            Overloaded: too many documents are waiting.
        """
        if self._waiting >= _MAX_WAITING:
            raise Overloaded(f"{self._waiting} files are waiting to be read; try again shortly")
        self._waiting += 1
        try:
            async with self._room:
                outcome = await self._run(source, target, filename)
        finally:
            self._waiting -= 1
        if (number := outcome.get("errno")) is not None:
            if int(number) in _NO_ROOM:
                raise StorageFull("no room on disk for the file's text: delete files, or free space")
            outcome = {"error": "the server could not write its text"}
        return Extracted(outcome.get("error"))

    async def _run(self, source: Path, target: Path, filename: str) -> dict[str, str]:
        limits = (
            self._config.extraction_seconds,
            self._config.extraction_memory_bytes,
            self._config.max_text_bytes,
        )
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mooring.extraction.worker"),
            *(str(source), str(target), filename, *map(str, limits)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"MALLOC_ARENA_MAX": "2"},  # an arena a thread would eat the address space
        )
        try:
            async with asyncio.timeout(2 * self._config.extraction_seconds):
                printed, _ = await child.communicate()
        except TimeoutError:
            return {"error": f"reading it took longer than {2 * self._config.extraction_seconds} s"}
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode == 0:
            outcome: dict[str, str] = json.loads(printed)
            return outcome
        _log.warning("extraction ended status=%s", child.returncode)
        return {"error": "reading it took more time or memory than this server grants, or failed"}
