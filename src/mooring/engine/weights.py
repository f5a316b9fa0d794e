"""The hash of a model's weights: which model it is, whatever its files are called."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

_BLOCK_BYTES = 1 << 22


def hash_weights(
    paths: Sequence[Path], memory: Path, *, on_progress: Callable[[float], None] | None = None
) -> str:
    """The hash of a model's files. Reading 40 GB takes a while, so `memory` remembers it.

    What is remembered counts only while the files' paths, sizes and modification times are the same.
    `on_progress` is called with the share read, 0.0 to 1.0.
    """
    stats = [path.stat() for path in paths]
    identity = [
        [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        for path, stat in zip(paths, stats, strict=True)
    ]
    known = _recall(memory)
    if known.get("files") == identity and isinstance(known.get("hash"), str):
        return str(known["hash"])
    digest = hashlib.blake2b(digest_size=32)
    done, total = 0, sum(stat.st_size for stat in stats)
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                if on_progress is not None:
                    on_progress(done / total)
    with contextlib.suppress(OSError):  # a full disk must not keep the server from starting
        memory.write_text(json.dumps({"files": identity, "hash": digest.hexdigest()}))
    return digest.hexdigest()


def _recall(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
