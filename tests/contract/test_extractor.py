"""Documents that do harm to their reader: the child process ends, the server goes on."""

import asyncio
import os
from pathlib import Path

import pytest
from documents import SENTENCE, make_deep, make_docx, with_part

from mooring.config import FilesConfig
from mooring.core.errors import Overloaded, StorageFull
from mooring.extraction.extractor import Extractor

pytestmark = pytest.mark.anyio


async def extract(folder: Path, data: bytes, config: FilesConfig, name: str = "a.docx") -> str | None:
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    extracted = await Extractor(config).extract(source, target, name)
    assert (extracted.problem is None) == target.exists()
    return extracted.problem


def slow_document() -> bytes:
    """As large as the reader allows: 90 MB of table cells."""
    row = b"<w:tr><w:tc><w:p><w:r><w:t>cell</w:t></w:r></w:p></w:tc></w:tr>"
    return with_part(
        make_docx(),
        "word/document.xml",
        lambda xml: xml.replace(
            b"<w:body>", b"<w:body><w:tbl>" + row * (90_000_000 // len(row)) + b"</w:tbl>"
        ),
    )


async def test_a_slow_document_is_given_up(tmp_path: Path):
    problem = await extract(tmp_path, slow_document(), FilesConfig(extraction_seconds=1))
    assert problem is not None
    assert "time or memory" in problem or "longer than" in problem


async def test_a_document_that_needs_much_memory_is_given_up(tmp_path: Path):
    config = FilesConfig(extraction_memory_bytes=512 << 20)
    problem = await extract(tmp_path, ("größer " * 60_000_000).encode("latin-1"), config, "a.txt")
    assert problem is not None
    assert "memory" in problem


async def test_deep_nesting_is_read(tmp_path: Path):
    assert await extract(tmp_path, make_deep(), FilesConfig()) is None


async def test_a_text_has_a_largest_size(tmp_path: Path):
    problem = await extract(tmp_path, b"x" * 2000, FilesConfig(max_text_bytes=1024), "a.txt")
    assert problem is not None
    assert "longer" in problem


async def test_an_extraction_that_is_cancelled_leaves_no_child(tmp_path: Path):
    task = asyncio.create_task(extract(tmp_path, slow_document(), FilesConfig()))
    while not children():  # noqa: ASYNC110 - the kernel sets no event
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


def children() -> str:
    """The process ids of this process's children."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().strip()


async def test_too_many_documents_are_sent_away(tmp_path: Path):
    extractor = Extractor(FilesConfig(extractions=1))
    source = tmp_path / "source"
    source.write_text(SENTENCE)
    waiting = [extractor.extract(source, tmp_path / f"{n}", "a.txt") for n in range(80)]
    tasks = [asyncio.create_task(each) for each in waiting]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert len(refused) == 16
    for task in refused:
        with pytest.raises(Overloaded):
            await task
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_full_disk_is_not_the_documents_fault(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text(SENTENCE)
    target.symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        await Extractor(FilesConfig()).extract(source, target, "a.txt")
