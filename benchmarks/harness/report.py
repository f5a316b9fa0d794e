"""What every benchmark leaves behind: a table on the screen, a JSON file and a plot."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from harness.models import CACHE, SHAPES
from mooring.engine.llamacpp.binding import LIBRARY_VERSION

mpl.use("Agg")
RESULTS = Path(__file__).parents[1] / "results"
OURS, PEER, OTHER = "#2a6f97", "#c8553d", "#8d99ae"
"""Colours of the plots: Mooring, the peer, anything else."""
console = Console(width=None if sys.stdout.isatty() else 120)


def arguments(docstring: str | None, shape: str | None = "half") -> argparse.ArgumentParser:
    """The options that benchmarks have in common; `shape` is the default one."""
    assert docstring is not None
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if shape is not None:
        parser.add_argument("--shape", choices=SHAPES, default=shape, help="of the model [%(default)s]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both engines")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the figures")
    return parser


def peer_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that have a peer."""
    parser.add_argument(
        "--peer-venv",
        type=Path,
        default=CACHE / "peer",
        help="the peer's virtual environment, made when missing [%(default)s]",
    )
    parser.add_argument("--no-peer", action="store_true", help="Mooring alone")


def describe(benchmark: str, **figures: Any) -> dict[str, Any]:
    """The head of a JSON file: what, when, where, on which library."""
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": _processor()},
        "llama_cpp_python": LIBRARY_VERSION,
        **figures,
    }


def write(report: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {out}/{name}.json and {name}.png")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; the first column is names, the others figures."""
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left")
    for row in rows:
        shown.add_row(*map(str, row))
    console.print(shown)


def say(text: str) -> None:
    """A line of progress."""
    console.print(f"[dim]{datetime.now():%H:%M:%S}[/] {text}", highlight=False)


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _processor() -> str:
    """The name that Linux knows it by; elsewhere the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
