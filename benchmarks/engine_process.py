"""What it costs that the engine is a child process, against the same engine in the same process.

    python benchmarks/engine_process.py      # the bundled model's shape: about 3 minutes on 2 cores

Both engines are loaded at once and asked in turn, so that a drifting machine drifts for both. Measured
is what the caller of the Engine interface sees: the time that an answer takes a token, from its first to
its last, for one answer and for sixteen at once; the time from a question on a resident prefix of 30,000
tokens to its first token; a prompt's rendering. Beside it, how long the child takes from its start, and
from its death, to its first answer.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mooring.app import bundled
from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.prefix import Prefix
from mooring.engine.interface import Delta, Engine, Finished, Generation, Grammar, Sampling
from mooring.engine.llamacpp.loading import load_engine
from mooring.engine.process.engine import ProcessEngine, start_engine
from mooring.telemetry import Metrics, ServerMetrics

LONG = Grammar("start: /[a-z ]{5000}/", "response_format")  # so that no answer ends early
PREFIX_TOKENS = 30_000
QUESTION = Conversation(({"role": "user", "content": "Which berth is free?"},), (), date(2026, 1, 1))
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One quantity, of both engines."""

    name: str
    here_ms: list[float]
    child_ms: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.here_ms), statistics.median(self.child_ms)


Measure = Callable[[Engine], Awaitable[list[float]]]


async def a_token(engine: Engine, answers: int, tokens: int) -> list[float]:
    """Milliseconds a token, from an answer's first to its last: several may arrive at once."""

    async def follow(number: int) -> float:
        sampling = Sampling(tokens, seed=number)
        async with aclosing(engine.generate(Generation((5, 6, 7), None, sampling, LONG))) as events:
            at = [time.perf_counter() async for event in events if isinstance(event, Delta)]
        return 1000 * (at[-1] - at[0]) / (len(at) - 1)

    return list(await asyncio.gather(*map(follow, range(answers))))


async def to_first_token(engine: Engine, prefix: Prefix) -> list[float]:
    """Milliseconds from a question on the prefix to its first token."""
    generation = Generation((*prefix.tokens, 8, 9, 10), prefix, Sampling(1, temperature=0))
    begun = time.perf_counter()
    async with aclosing(engine.generate(generation)) as events:
        async for event in events:
            if not isinstance(event, Delta | Finished):
                continue
            return [1000 * (time.perf_counter() - begun)]
    raise AssertionError("an answer has an end")


async def rendering(engine: Engine) -> list[float]:
    begun = time.perf_counter()
    await engine.render(QUESTION)
    return [1000 * (time.perf_counter() - begun)]


async def compare(arguments: argparse.Namespace, data: Path) -> tuple[list[Row], dict[str, float]]:
    model = bundled("demo.gguf")
    config = EngineConfig(cells=65_536, sequences=32, context_tokens=32_768, threads=arguments.threads)
    common = (model, "demo", config, KvStoreConfig())
    here = await load_engine(*common, data / "here", Metrics())
    begun = time.perf_counter()
    child = await start_engine(*common, data / "child", ServerMetrics())
    times = {"child_start_s": time.perf_counter() - begun}
    prefix = Prefix("bench", tuple(5 + number * 7919 % 3000 for number in range(PREFIX_TOKENS)))
    with Progress(transient=True) as bars:
        for engine, name in ((here, "in this process"), (child, "in the child")):
            bar = bars.add_task(f"Keeping the prefix {name}", total=PREFIX_TOKENS)
            await engine.keep(
                prefix, lambda news, bar=bar: bars.update(bar, completed=news.evaluated_tokens)
            )
            await to_first_token(engine, prefix)
    tokens = arguments.tokens
    measures: list[tuple[str, int, Measure]] = [
        ("a token of 1 answer", 15, lambda engine: a_token(engine, 1, tokens)),
        ("a token of 16 answers", 5, lambda engine: a_token(engine, 16, tokens // 2)),
        ("first token, resident 30,000", 9, lambda engine: to_first_token(engine, prefix)),
        ("render a short prompt", 50, rendering),
    ]
    rows = []
    for name, rounds, measure in measures:
        series: tuple[list[float], list[float]] = ([], [])
        for round_ in range(rounds):
            both = list(zip((here, child), series, strict=True))
            for engine, taken in both if round_ % 2 else reversed(both):
                if name.startswith("first token"):
                    await to_first_token(engine, prefix)  # resident again
                taken += await measure(engine)
        rows.append(Row(name, *series))
    times["child_back_s"] = await back(child)
    await here.close()
    await child.close()
    return rows, times


async def back(child: ProcessEngine) -> float:
    """Seconds from the child's death to the answer of a request that was sent at once."""
    begun = time.perf_counter()
    os.kill(child._supervisor.running.pid, signal.SIGKILL)
    await a_token(child, 1, 2)
    return time.perf_counter() - begun


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mooring-process-") as directory:
        data = Path(directory)
        for name in ("here", "child"):
            (data / name).mkdir()
        rows, times = asyncio.run(compare(arguments, data))
    console.print(table(rows))
    console.print(
        f"start of the child {times['child_start_s']:.2f} s;"
        f" from its death to an answer {times['child_back_s']:.2f} s"
    )
    write(rows, times, arguments)
    console.print(f"written to {arguments.out}/engine_process.json and .png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=300, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=1, help="of llama.cpp, in each engine")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def table(rows: list[Row]) -> Table:
    shown = Table(title="The engine in this process and in a child: medians in ms")
    shown.add_column("")
    for column in ("in this process", "in a child", "difference", "ratio"):
        shown.add_column(column, justify="right")
    for row in rows:
        here, child = row.medians
        shown.add_row(
            row.name, f"{here:.3f}", f"{child:.3f}", f"{child - here:+.3f}", f"{child / here:.3f}"
        )
    return shown


def write(rows: list[Row], times: dict[str, float], arguments: argparse.Namespace) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {
        "benchmark": "engine_process",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "threads": arguments.threads,
        "times": times,
        "rows": [
            {
                "name": row.name,
                "samples": len(row.here_ms),
                "here_median_ms": row.medians[0],
                "child_median_ms": row.medians[1],
                "difference_ms": row.medians[1] - row.medians[0],
                "ratio": row.medians[1] / row.medians[0],
            }
            for row in rows
        ],
    }
    (arguments.out / "engine_process.json").write_text(json.dumps(report, indent=2) + "\n")
    figure, axes = plt.subplots(figsize=(7, 3.2))
    at = range(len(rows))
    for offset, which, label in ((-0.2, 0, "in this process"), (0.2, 1, "in a child")):
        heights = [row.medians[which] for row in rows]
        bars = axes.barh([place + offset for place in at], heights, 0.38, label=label)
        axes.bar_label(bars, [f"{height:.2f}" for height in heights], padding=3, fontsize=8)
    axes.set_yticks(list(at), [row.name for row in rows])
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set_xlabel("median, ms (logarithmic)")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(arguments.out / "engine_process.png", dpi=120)


if __name__ == "__main__":
    main()
