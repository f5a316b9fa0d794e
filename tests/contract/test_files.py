"""The registry of files, and what a start forgets of what others may be at."""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from mooring.config import FilesConfig
from mooring.core.context import Page
from mooring.core.errors import FileNotFound
from mooring.core.file import File, FileStatus
from mooring.extraction.extractor import Extractor
from mooring.registry.database import Database
from mooring.registry.files import Files
from mooring.service.files import FileStore

pytestmark = pytest.mark.anyio

NOW = 1_760_000_000
NO_BOUND = {"max_files": 1000, "max_total_bytes": 1 << 40}


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database)


def file(number: int, **fields) -> File:
    usual = {"tenant": "north", "filename": "a\x00b.txt", "bytes": 10, "created_at": NOW}
    return File(f"file-{number}", status=FileStatus.PENDING, **usual | fields)


def keep(files: Files, kept: File) -> None:
    assert files.reserve(kept, **NO_BOUND) is None
    files.settle(kept.id, FileStatus.OK, None)


def test_a_file_is_shown_once_it_is_settled(files: Files):
    assert files.reserve(file(1), **NO_BOUND) is None
    assert files.get("north", "file-1") is None
    files.settle("file-1", FileStatus.ERROR, "no\x00text")
    found = files.get("north", "file-1")
    assert (found.filename, found.status, found.problem) == (
        "a\x00b.txt",
        FileStatus.ERROR,
        "no\x00text",
    )
    assert files.get("south", "file-1") is None
    assert [each.id for each in files.list("north", Page(9))] == ["file-1"]
    assert files.delete("north", "file-1")
    assert not files.delete("north", "file-1")


def test_reservations_at_once_do_not_pass_the_limits(files: Files):
    def reserve(number: int) -> bool:
        return files.reserve(file(number), max_files=5, max_total_bytes=1000) is None

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(reserve, range(24))).count(True) == 5
    assert files.reserve(file(99, tenant="south"), max_files=5, max_total_bytes=10) is None
    assert files.reserve(file(100, tenant="south"), max_files=5, max_total_bytes=19) == (1, 10)


def test_a_reservation_waits_for_one_that_is_not_committed(database: Database, files: Files):
    only = {"max_files": 1, "max_total_bytes": 100}
    with ThreadPoolExecutor(1) as threads:
        with database.begin():
            assert files.reserve(file(1), **only) is None
            second = threads.submit(files.reserve, file(2), **only)
            wait([second], timeout=0.3)
        assert second.result() == (1, 10)


def test_what_was_begun_lately_is_not_dropped_with_the_rest(files: Files):
    keep(files, file(1, created_at=NOW - 5000))
    files.reserve(file(2, created_at=NOW - 5000), **NO_BOUND)
    files.reserve(file(3, created_at=NOW), **NO_BOUND)
    assert files.drop_pending(NOW - 3600) == {"file-1", "file-3"}


async def test_a_server_that_starts_leaves_the_uploads_of_others_alone(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "files"
    folder.mkdir()
    paths = {name: folder / name for name in ("old.upload", "new.upload", "file-1.json")}
    for path in paths.values():
        path.touch()
    os.utime(paths["old.upload"], (NOW - 5000, NOW - 5000))
    os.utime(paths["new.upload"], (NOW - 5, NOW - 5))
    files, config = Files(database), FilesConfig()
    keep(files, file(1))
    files.reserve(file(2, created_at=NOW - 5), **NO_BOUND)
    store = FileStore(files, Extractor(config), folder, config, clock=lambda: NOW)
    await store.resume()
    remains = {"file-1.json", "new.upload"} if database.is_shared else {"file-1.json"}
    assert {path.name for path in folder.iterdir()} == remains
    assert ("files.folder is not set" in caplog.text) == database.is_shared
    files.settle("file-2", FileStatus.OK, None)  # its text is on another server
    if database.is_shared:
        with pytest.raises(FileNotFound):
            await store.content("north", "file-2")
