"""The random-weight models that benchmarks run on, written once and kept in the user's cache folder."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import platformdirs
from rich.progress import Progress

from harness.vocabulary import word_vocabulary
from mooring.testing import DEMO, HALF, TINY, write_random_model

SHAPES = {
    "tiny": replace(TINY, vocabulary=4_000),
    "demo": replace(DEMO, vocabulary=16_000),
    "half": HALF,
}
"""0.6, 11 and 387 million parameters."""
CACHE = Path(os.environ.get("MOORING_BENCH_CACHE") or platformdirs.user_cache_path("mooring-bench"))
"""Models and the peer's virtual environment; can be deleted at any time."""


def model_file(name: str) -> Path:
    """The GGUF of a shape, made if it is not there, and in the page cache: no server waits for it."""
    shape = SHAPES[name]
    assert shape.vocabulary is not None
    path = CACHE / f"{name}-{hashlib.sha256(repr(shape).encode()).hexdigest()[:12]}-ascii.gguf"
    if path.exists():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with Progress(transient=True) as bars:
        bar = bars.add_task(f"Writing the random-weight model ({name})")
        write_random_model(
            unfinished,
            shape,
            vocabulary=word_vocabulary(shape.vocabulary),
            on_tensor=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    return unfinished.rename(path)
