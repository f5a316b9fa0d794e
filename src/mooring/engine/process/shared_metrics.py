"""An engine's metrics, shown by another process: in files that both have in memory.

So they are exact at any moment, cost no message, and a counter goes on where the last process left it.
The files are those of prometheus_client's multi-process mode.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from prometheus_client import values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_WRITER = "engine"  # not a process id: the next process goes on with the same files
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder that is ours alone
_NEEDED_BYTES = 1 << 20
"""A mapped file that cannot grow ends the process, so there has to be room."""


def write_metrics_to(folder: Path) -> None:
    """From now on, metrics that are made in this process live in `folder`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: _WRITER)  # type: ignore[no-untyped-call]


class SharedMetrics:
    """The folder, for the process that shows them."""

    def __init__(self, data_dir: Path) -> None:
        """`data_dir` is used by one server only; what a killed one left in memory goes."""
        name = f"mooring-{hashlib.sha256(bytes(data_dir.resolve())).hexdigest()[:16]}-"
        parent = _roomy()
        for left in parent.glob(f"{name}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix=name, dir=parent))
        self.collector: Collector = MultiProcessCollector(None, str(self.folder))  # type: ignore[no-untyped-call]

    def forget_gauges(self) -> None:
        """The process that wrote them has ended: it holds nothing any more."""
        mark_process_dead(_WRITER, str(self.folder))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _roomy() -> Path:
    """Memory when there is some to be had, the disk otherwise."""
    usable = _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK)
    if usable and shutil.disk_usage(_IN_MEMORY).free > _NEEDED_BYTES:
        return _IN_MEMORY
    return Path(tempfile.gettempdir())
