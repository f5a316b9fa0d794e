"""A restart with many contexts: how soon is the first hit?

    python benchmarks/restart.py            # 0.6M shape, 1,000 contexts of 1,024 tokens
    python benchmarks/restart.py --quick    # 50 contexts

Starts on the full data directory and on an empty one take turns, the page cache of the stored bytes
dropped before each. The clock runs from the process's start; "ready" is when it says that it serves.
Loading Python, the model and its fingerprint is the same for both, so what the contexts cost at start
is the difference. Then one context, drawn anew each time, is asked about; on the empty directory the
question is asked without one.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.progress import track

from harness import report
from harness.bandwidth import drop_from_page_cache
from harness.models import model_file
from harness.ours import Mooring, settings
from harness.processes import memory_bytes
from harness.prompts import Message, Prompts


@dataclass(frozen=True)
class Start:
    """One start; seconds from the process's start."""

    ready_s: float
    first_token_s: float
    lookup_s: float
    """Of these, from the request to its first token."""
    second_lookup_s: float
    """The same of the next request, about another context."""
    computed_tokens: int
    cached_tokens: int
    memory_bytes: int


def main() -> None:
    arguments = parse_arguments()
    model = model_file(arguments.shape)
    prompts = Prompts(model)
    with tempfile.TemporaryDirectory(prefix="mooring-restart-") as directory:
        work = Path(directory)
        caches, creation_s = create(work / "full", model, prompts, arguments)
        stored = sum(f.stat().st_size for f in (work / "full" / "kv").rglob("*") if f.is_file())
        rows = measure(work, model, caches, prompts, arguments)
    prompts.close()
    medians = {name: median(starts) for name, starts in rows.items()}
    figures = report.describe(
        "restart",
        shape=arguments.shape,
        contexts=len(caches),
        context_tokens=arguments.tokens,
        stored_bytes=stored,
        creation_s=creation_s,
        starts={name: [asdict(start) for start in starts] for name, starts in rows.items()},
        medians=medians,
        contexts_cost_at_start_s=medians["full"]["ready_s"] - medians["empty"]["ready_s"],
    )
    show(figures)
    name = "restart" + ("-quick" if arguments.quick else "")
    plot(figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__, shape="tiny")
    parser.add_argument("--contexts", type=int, default=1000, help="[%(default)s]")
    parser.add_argument("--tokens", type=int, default=1024, help="of each [%(default)s]")
    parser.add_argument("--repeats", type=int, default=5, help="starts of each kind [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="50 contexts, 2 starts of each kind")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.contexts, arguments.repeats = 50, 2
    return arguments


def config(arguments: argparse.Namespace) -> str:
    return settings(engine={"threads": arguments.threads})


def create(
    data_dir: Path, model: Path, prompts: Prompts, arguments: argparse.Namespace
) -> tuple[list[Message], float]:
    """Make the contexts, eight at a time; returns the messages that name them."""
    text = prompts.system(arguments.tokens, "Context 0000")["content"]
    body = text.removeprefix("Context 0000")
    systems = [
        {"role": "system", "content": f"Context {number:04d}{body}"}
        for number in range(arguments.contexts)
    ]
    with Mooring(data_dir, model, config(arguments)) as server, ThreadPoolExecutor(8) as users:
        begun = time.perf_counter()
        caches = list(
            track(users.map(server.keep, systems), "Creating", total=len(systems), transient=True)
        )
        creation_s = time.perf_counter() - begun
    report.say(f"{len(caches):,} contexts created in {creation_s:.0f} s")
    return caches, creation_s


def measure(
    work: Path, model: Path, caches: Sequence[Message], prompts: Prompts, arguments: argparse.Namespace
) -> dict[str, list[Start]]:
    drawn = random.Random(0)
    questions = itertools.count()
    rows: dict[str, list[Start]] = {"empty": [], "full": []}
    for number in range(1 + arguments.repeats):
        for name, starts in rows.items():
            asked = [
                [*([cache] if name == "full" else []), *prompts.questions(1, seed=next(questions))]
                for cache in drawn.sample(caches, 2)
            ]
            started = start(work / name, model, asked, arguments)
            if name == "full":
                assert started.cached_tokens >= arguments.tokens - 8, started
            if number > 0:  # the first of each warms up
                starts.append(started)
            report.say(
                f"{name}: ready after {started.ready_s:.2f} s,"
                f" first token {started.lookup_s:.3f} s later"
            )
    return rows


def start(
    data_dir: Path, model: Path, asked: Sequence[list[Message]], arguments: argparse.Namespace
) -> Start:
    if (data_dir / "kv").exists():
        drop_from_page_cache(data_dir / "kv")
    begun = time.perf_counter()
    with Mooring(data_dir, model, config(arguments)) as server:
        ready_s = time.perf_counter() - begun
        first = server.ask(*asked[0], tokens=1)
        first_token_s = time.perf_counter() - begun
        second = server.ask(*asked[1], tokens=1)
        return Start(
            ready_s=ready_s,
            first_token_s=first_token_s,
            lookup_s=first.first_token_s,
            second_lookup_s=second.first_token_s,
            computed_tokens=first.computed_tokens,
            cached_tokens=first.cached_tokens,
            memory_bytes=memory_bytes(server.pid),
        )


def median(starts: Sequence[Start]) -> dict[str, float]:
    rows = [asdict(start) for start in starts]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def show(figures: dict[str, Any]) -> None:
    report.table(
        f"Restart with {figures['contexts']:,} contexts of {figures['context_tokens']:,} tokens"
        f" ({figures['stored_bytes'] / 1e6:,.0f} MB), {figures['shape']} shape, medians",
        [
            "store",
            "ready s",
            "first token s",
            "of it look-up ms",
            "next look-up ms",
            "computed",
            "MB resident",
        ],
        [
            [
                name,
                f"{row['ready_s']:.2f}",
                f"{row['first_token_s']:.2f}",
                f"{1000 * row['lookup_s']:.0f}",
                f"{1000 * row['second_lookup_s']:.0f}",
                f"{row['computed_tokens']:.0f}",
                f"{row['memory_bytes'] / 1e6:.0f}",
            ]
            for name, row in figures["medians"].items()
        ],
    )
    cost = figures["contexts_cost_at_start_s"]
    report.console.print(f"What the contexts cost until ready: {cost:.2f} s")


def plot(figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chart, axes = plt.subplots(figsize=(7, 2.2))
    rows = figures["medians"]
    ready = [row["ready_s"] for row in rows.values()]
    later = [row["lookup_s"] for row in rows.values()]
    axes.barh(list(rows), ready, color=report.OTHER, label="until ready")
    axes.barh(list(rows), later, left=ready, color=report.OURS, label="until the first token")
    axes.invert_yaxis()
    axes.legend()
    axes.set_xlabel("seconds from the process's start")
    axes.set_title(f"Restart with {figures['contexts']:,} contexts")
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
