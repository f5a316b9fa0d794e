"""What `gateway.py` measured, as a table, a JSON file and a plot."""

import json
import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
from rich.table import Table


@dataclass(frozen=True)
class Series:
    """One row of the table."""

    name: str
    load: str
    answers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    """Processors that the server kept busy."""
    load_cores: float
    latencies_ms: list[float]


def summarise(
    series: list[Series], shares: dict[str, float], *, tenants: int, caches: int, connections: int
) -> dict:
    """The JSON file. `shares` are of the first series."""
    closed = series[0]
    cpu_ms = 1000 * closed.server_cores / closed.per_second
    rows = [{key: value for key, value in vars(row).items() if key != "latencies_ms"} for row in series]
    return {
        "benchmark": "gateway",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "tenants": tenants,
        "caches": caches,
        "connections": connections,
        "series": rows,
        "cpu_ms_per_request": cpu_ms,
        "stages_cpu_ms": {stage: share * cpu_ms for stage, share in shares.items()},
    }


def table(series: list[Series]) -> Table:
    shown = Table(title="Through the whole gateway, engine answering at once")
    for column, justify in (("", "left"), ("load", "left")):
        shown.add_column(column, justify=justify)
    for column in ("requests/s", "p50 ms", "p99 ms", "server cores", "load cores"):
        shown.add_column(column, justify="right")
    for row in series:
        shown.add_row(
            row.name,
            row.load,
            f"{row.per_second:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.server_cores:.2f}",
            f"{row.load_cores:.2f}",
        )
    return shown


def stage_table(report: dict) -> Table:
    shown = Table(title=f"{report['cpu_ms_per_request']:.3f} ms of CPU a request, by stage")
    shown.add_column("stage")
    shown.add_column("CPU ms", justify="right")
    shown.add_column("share", justify="right")
    for stage, milliseconds in report["stages_cpu_ms"].items():
        share = milliseconds / report["cpu_ms_per_request"]
        shown.add_row(stage, f"{milliseconds:.3f}", f"{100 * share:.1f} %")
    return shown


def write(report: dict, series: list[Series], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "gateway.json").write_text(json.dumps(report, indent=2) + "\n")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    for row in series:
        shares = [(index + 1) / len(row.latencies_ms) for index in range(len(row.latencies_ms))]
        left.plot(row.latencies_ms, shares, label=f"{row.name}, {row.load}")
    left.set_xscale("log")
    left.set_xlabel("latency, ms (logarithmic)")
    left.set_ylabel("share of answers")
    left.legend(fontsize=6)
    left.set_title("Latency added by the gateway")
    names = list(report["stages_cpu_ms"])
    bars = right.barh(names, list(report["stages_cpu_ms"].values()), color="#2a6f97")
    right.bar_label(bars, fmt="%.3f", padding=3, fontsize=7)
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set_xlabel("CPU ms a request")
    right.set_title("Where the time goes")
    figure.tight_layout()
    figure.savefig(out / "gateway.png", dpi=120)
