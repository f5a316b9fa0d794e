"""The child's side: read one document under limits, write its text as JSON. Run by `extractor`.

    python -m mooring.extraction.worker SOURCE TARGET FILENAME CPU_SECONDS MEMORY_BYTES TEXT_BYTES

Prints one line of JSON: {"file_type"} of what was written to TARGET, or {"error"}.
"""

import errno
import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

from mooring.extraction.encoding import NotText, decode

_SAMPLE = 4096
_OFFICE = "application/vnd.openxmlformats-officedocument."
_DOCUMENTS = {
    "application/pdf": "PDF",
    f"{_OFFICE}wordprocessingml.document": "DOCX",
    f"{_OFFICE}presentationml.presentation": "PPTX",
    f"{_OFFICE}spreadsheetml.sheet": "XLSX",
}
_HTML = "text/html"
_TEXT_TYPES = {".md": "text/markdown", ".markdown": "text/markdown", ".html": _HTML, ".htm": _HTML}
_BINARY = (b"%PDF-", b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0")  # PDF, ZIP, old Office


class Unreadable(Exception):
    """Why a document has no text for us."""


def main(arguments: list[str]) -> None:
    source, target, filename, *limits = arguments
    cpu_seconds, memory_bytes, text_bytes = map(int, limits)
    _limit(cpu_seconds, memory_bytes, text_bytes)
    try:
        file_type, title, text = extract(Path(source), filename)
        _write(Path(target), file_type, title, text, filename)
        outcome = {"file_type": file_type}
    except Unreadable as error:
        outcome = {"error": str(error)}
    except MemoryError:
        outcome = {"error": "reading it takes more memory than this server grants"}
    except OSError as error:
        Path(target).unlink(missing_ok=True)
        outcome = {"error": "its text is longer than this server takes"}
        if error.errno not in (None, errno.EFBIG):  # which is the limit on what may be written
            outcome = {"errno": str(error.errno)}
    sys.stdout.write(json.dumps(outcome) + "\n")


def extract(source: Path, filename: str) -> tuple[str, str, str]:
    """The type, title and text of a document, by what is in it and not by what it is called.

    Raises:
        Unreadable: there is no text in it, or none that can be read.
    """
    data = source.read_bytes()
    if not data:
        raise Unreadable("the file is empty")
    if data.startswith(_BINARY):
        return _document(data)
    try:
        text = decode(data)
    except NotText as error:
        raise Unreadable(
            "it is neither text nor a PDF, DOCX, PPTX or XLSX document; images are not read"
        ) from error
    if not text.strip():
        raise Unreadable("there is nothing but space in it")
    file_type = _TEXT_TYPES.get(Path(filename).suffix.lower(), "text/plain")
    if file_type == _HTML or text[:_SAMPLE].lstrip().lower().startswith(("<!doctype html", "<html")):
        return _read(text.encode(), _HTML, "HTML page")
    return file_type, "", text


def _document(data: bytes) -> tuple[str, str, str]:
    import kreuzberg

    try:
        found = kreuzberg.detect_mime_type_from_bytes(data)  # type: ignore[attr-defined]
    except RuntimeError:
        found = ""
    if found not in _DOCUMENTS:
        kind = (
            "an archive or a damaged document" if data.startswith(b"PK") else "a damaged or old document"
        )
        raise Unreadable(f"it is {kind}, not a PDF, DOCX, PPTX or XLSX document that can be read")
    return _read(data, found, _DOCUMENTS[found])


def _read(data: bytes, file_type: str, kind: str) -> tuple[str, str, str]:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(use_cache=False, disable_ocr=True)  # type: ignore[call-arg]
    try:
        result = kreuzberg.extract_bytes_sync(data, file_type, config)
    except kreuzberg.KreuzbergError as error:
        reason = str(error)
        if "password" in reason.lower() or "encrypt" in reason.lower():
            raise Unreadable(f"the {kind} is encrypted: send it without a password") from error
        if "limit" in reason.lower():
            raise Unreadable(f"the {kind} unpacks to more than can be read: {reason}") from error
        raise Unreadable(f"the {kind} is damaged: {reason}") from error
    if not result.content.strip():
        raise Unreadable(f"the {kind} has no text in it; scanned pages and images are not read")
    return file_type, str(result.metadata.get("title") or ""), result.content


def _write(target: Path, file_type: str, title: str, text: str, filename: str) -> None:
    """Durable when this returns."""
    content = {
        "content": text,
        "file_type": file_type,
        "filename": filename,
        "title": title,
        "type": "file",
    }
    with target.open("w", encoding="utf-8", errors="replace") as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())


def _limit(cpu_seconds: int, memory_bytes: int, text_bytes: int) -> None:
    wanted = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: text_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        with suppress(ValueError, OSError):  # macOS knows no limit on the address space
            resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error from write() instead of the end
    main(sys.argv[1:])
