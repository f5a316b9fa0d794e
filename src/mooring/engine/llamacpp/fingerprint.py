"""Which KV bytes are interchangeable: the same weights, layout, kernel and library build."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from mooring.engine.llamacpp.binding import LIBRARY_VERSION, ContextShape

_BLOCK_BYTES = 1 << 22


def fingerprint(weights_hash: str, shape: ContextShape) -> str:
    """What an exported state depends on beside its tokens, as 32 hex digits.

    The number of cells, sequences and threads is left out: states move freely between those.
    """
    parts = [
        f"weights={weights_hash}",
        f"kv={shape.kv_type}",
        f"flash_attention={shape.flash_attention}",
        f"llama-cpp-python={LIBRARY_VERSION}",
    ]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def hash_weights(path: Path, memory: Path, *, on_progress: Callable[[float], None] | None = None) -> str:
    """The hash of a model file. Reading 40 GB takes a while, so `memory` remembers it.

    What is remembered counts only while the file's path, size and modification time are the same.
    `on_progress` is called with the share read, 0.0 to 1.0.
    """
    stat = path.stat()
    identity = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    known = _recall(memory)
    if known.get("file") == identity and isinstance(known.get("hash"), str):
        return str(known["hash"])
    digest = hashlib.blake2b(digest_size=32)
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if on_progress is not None:
                on_progress(done / stat.st_size)
    memory.write_text(json.dumps({"file": identity, "hash": digest.hexdigest()}))
    return digest.hexdigest()


def _recall(memory: Path) -> dict[str, object]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
