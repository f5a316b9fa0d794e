"""Time to first token of one question about a long text: uncached, from each tier, and the floor.

    python benchmarks/ttft.py            # 387M shape, 4,096 tokens
    python benchmarks/ttft.py --quick    # 11M shape, 1,024 tokens

Everything but the floor goes through a real `mooring serve` over HTTP: JSON in, chat template,
tokenisation of the whole prompt, look-up, restore, prefill of the question, first token out as SSE.
The floor is raw llama-cpp-python in this process, with the prefix already in its sequence: one
`llama_decode` of the question's tokens and the argmax of its logits, nothing else. Floor, resident,
RAM and disk are measured in turn, so that a drifting machine drifts for all of them.

What a hit may take: resident, 1.1 floors; from RAM, the floor and twice the time that copying the
stored bytes takes; from disk, the floor and 1.5 times what reading them takes with the page cache
dropped. Both speeds are sampled in the same turns.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.progress import track

from harness import report
from harness.bandwidth import Speeds, drop_from_page_cache
from harness.floor import Raw
from harness.models import model_file
from harness.ours import Mooring, settings
from harness.prompts import Message, Prompts

FLOOR, RESIDENT, RAM, DISK, UNCACHED = "floor", "resident", "ram", "disk", "uncached"
_OTHER: Message = {"role": "user", "content": "Hi"}


@dataclass(frozen=True)
class Series:
    """One row of the table."""

    name: str
    seconds: list[float]
    prompt_tokens_evaluated: int
    allowed_s: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Texts:
    """What is asked: every question but the floor's is another one, all of one length."""

    system: Message
    others: list[Message]
    """System messages that are not kept, for the uncached questions."""
    questions: list[Message]
    prompt: list[int]
    prefix_tokens: int
    stored_bytes: int
    """Of the prefix's KV."""


def main() -> None:
    arguments = parse_arguments()
    model = model_file(arguments.shape)
    texts = make_texts(model, arguments)
    with tempfile.TemporaryDirectory(prefix="mooring-ttft-") as directory:
        work = Path(directory)
        speeds = Speeds(work, texts.stored_bytes)
        series = with_bounds(measure(work, model, texts, speeds, arguments), texts, speeds)
    figures = summarise(series, texts, speeds, arguments)
    show(series, figures)
    name = "ttft" + ("-quick" if arguments.quick else "")
    plot(series, figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=4096, help="of the cached prefix [%(default)s]")
    parser.add_argument("--repeats", type=int, default=15, help="[%(default)s]")
    parser.add_argument("--uncached-repeats", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--quick", action="store_true", help="11M shape, 1,024 tokens")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.tokens = "demo", 1024
    return arguments


def make_texts(model: Path, arguments: argparse.Namespace) -> Texts:
    prompts = Prompts(model)
    system = prompts.system(arguments.tokens)
    others = [
        prompts.system(arguments.tokens, f"{number} other")
        for number in range(arguments.uncached_repeats)
    ]
    count = 2 + arguments.uncached_repeats + 3 * arguments.repeats
    floors_question, *questions = prompts.questions(1 + count)
    prefix = prompts.prefix(system)
    texts = Texts(
        system=system,
        others=others,
        questions=questions,
        prompt=prompts.render(system, floors_question),
        prefix_tokens=len(prefix),
        stored_bytes=len(prefix) * prompts.kv_bytes_per_token,
    )
    prompts.close()
    return texts


def measure(
    work: Path, model: Path, texts: Texts, speeds: Speeds, arguments: argparse.Namespace
) -> list[Series]:
    questions = iter(texts.questions)
    config = settings(engine={"threads": arguments.threads})
    data_dir = work / "data"
    with Mooring(data_dir, model, config) as server:
        server.ask(_OTHER, tokens=1)  # warms up
        report.say("Uncached")
        uncached = [server.ask(other, next(questions), tokens=1) for other in texts.others]
        report.say("Creating the cache")
        cache = server.keep(texts.system)
    report.say("Prefilling the floor")
    floor = Raw(
        model,
        cells=-(-2 * len(texts.prompt) // 256) * 256,
        threads=arguments.threads,
        flash_attention=False,
    )
    floor.prefill(texts.prompt[: texts.prefix_tokens], 0)
    rows = in_turn(work, model, texts, speeds, cache, floor, questions, arguments)
    floor.close()
    slow = Series(UNCACHED, [a.first_token_s for a in uncached], uncached[-1].computed_tokens)
    return [slow, *rows]


def in_turn(
    work: Path,
    model: Path,
    texts: Texts,
    speeds: Speeds,
    cache: Message,
    floor: Raw,
    questions: Iterator[Message],
    arguments: argparse.Namespace,
) -> list[Series]:
    """Floor, RAM, resident and disk, one after the other, again and again."""
    engine = {"threads": arguments.threads}
    # A second server needs a data directory of its own; without a RAM tier, what left the buffer
    # comes from disk.
    ignored = shutil.ignore_patterns("lock", "server.log")
    shutil.copytree(work / "data", work / "data-for-disk", ignore=ignored)
    seconds: dict[str, list[float]] = {name: [] for name in (FLOOR, RESIDENT, RAM, DISK)}
    computed: dict[str, int] = {FLOOR: len(texts.prompt) - texts.prefix_tokens}
    with ExitStack() as stack:
        server = stack.enter_context(Mooring(work / "data", model, settings(engine=engine)))
        diskless = stack.enter_context(
            Mooring(work / "data-for-disk", model, settings(engine=engine, kvstore={"ram_bytes": 0}))
        )

        def hit(name: str, asked: Mooring, prepare: Callable[[], object]) -> None:
            prepare()
            answer = asked.ask(cache, next(questions), tokens=1)
            seconds[name].append(answer.first_token_s)
            computed[name] = answer.computed_tokens

        def leave_buffer(asked: Mooring) -> None:
            """Another request takes the idle prefix out of the KV buffer."""
            asked.ask(_OTHER, tokens=1)

        def leave_memory() -> None:
            leave_buffer(diskless)
            drop_from_page_cache(work / "data-for-disk" / "kv")

        for asked in (server, diskless):
            asked.ask(cache, next(questions), tokens=1)  # from disk into RAM and the buffer
        for _ in track(range(arguments.repeats), "Floor, RAM, resident, disk", transient=True):
            question = texts.prompt[texts.prefix_tokens :]
            speeds.sample()
            seconds[FLOOR].append(floor.question(texts.prefix_tokens, question))
            hit(RAM, server, lambda: leave_buffer(server))
            hit(RESIDENT, server, lambda: None)
            hit(DISK, diskless, leave_memory)
        for name, asked in ((RAM, server), (RESIDENT, server), (DISK, diskless)):
            # All but the template's first words, which all requests share.
            taken = asked.cached_from()[name]
            assert taken > 0.99 * arguments.repeats * texts.prefix_tokens, (name, asked.cached_from())
    return [Series(name, values, computed[name]) for name, values in seconds.items()]


def with_bounds(series: list[Series], texts: Texts, speeds: Speeds) -> list[Series]:
    """Each hit beside what it may take."""
    floor_s = next(row.median for row in series if row.name == FLOOR)
    allowed = {
        RESIDENT: 1.1 * floor_s,
        RAM: floor_s + 2 * texts.stored_bytes / speeds.memory_bytes_per_s,
        DISK: floor_s + 1.5 * texts.stored_bytes / speeds.disk_bytes_per_s,
    }
    return [
        Series(row.name, row.seconds, row.prompt_tokens_evaluated, allowed.get(row.name))
        for row in series
    ]


def summarise(
    series: list[Series], texts: Texts, speeds: Speeds, arguments: argparse.Namespace
) -> dict[str, Any]:
    medians = {row.name: row.median for row in series}
    return report.describe(
        "ttft",
        shape=arguments.shape,
        threads=arguments.threads,
        prefix_tokens=texts.prefix_tokens,
        stored_bytes=texts.stored_bytes,
        question_tokens=len(texts.prompt) - texts.prefix_tokens,
        memory_bytes_per_s=speeds.memory_bytes_per_s,
        disk_bytes_per_s=speeds.disk_bytes_per_s,
        series=[
            {
                "name": row.name,
                "seconds": row.seconds,
                "prompt_tokens_evaluated": row.prompt_tokens_evaluated,
                "median_s": row.median,
                "allowed_s": row.allowed_s,
            }
            for row in series
        ],
        saving_percent={
            name: 100 * (1 - medians[name] / medians[UNCACHED]) for name in (RESIDENT, RAM, DISK, FLOOR)
        },
        over_floor={name: medians[name] / medians[FLOOR] for name in (RESIDENT, RAM, DISK)},
    )


def show(series: list[Series], figures: dict[str, Any]) -> None:
    rows = []
    for row in series:
        saving = figures["saving_percent"].get(row.name)
        ratio = figures["over_floor"].get(row.name)
        rows.append(
            [
                row.name,
                f"{row.prompt_tokens_evaluated:,}",
                *(f"{1000 * s:,.1f}" for s in (row.median, min(row.seconds), max(row.seconds))),
                "" if saving is None else f"{saving:.2f} %",
                "" if ratio is None else f"{ratio:.3f}",
                "" if row.allowed_s is None else f"{1000 * row.allowed_s:,.1f}",
            ]
        )
    report.table(
        f"TTFT, {figures['shape']} shape, prefix of {figures['prefix_tokens']:,} tokens"
        f" ({figures['stored_bytes'] / 1e6:.1f} MB), question of {figures['question_tokens']}",
        ["", "evaluated", "median ms", "min", "max", "saving", "over floor", "allowed ms"],
        rows,
    )
    report.console.print(
        f"Memory copies {figures['memory_bytes_per_s'] / 1e9:.1f} GB/s,"
        f" the disk gives {figures['disk_bytes_per_s'] / 1e9:.2f} GB/s"
    )


def plot(series: list[Series], figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chart, axes = plt.subplots(figsize=(7, 3.2))
    names = [row.name for row in series]
    colours = [report.OTHER if row.name in (FLOOR, UNCACHED) else report.OURS for row in series]
    bars = axes.barh(names, [1000 * row.median for row in series], color=colours)
    axes.bar_label(bars, [f"{1000 * row.median:,.0f} ms" for row in series], padding=4)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set_xlabel("time to first token, median, ms (logarithmic)")
    axes.set_title(
        f"{figures['shape']} shape, {figures['prefix_tokens']:,}-token prefix,"
        f" {figures['question_tokens']}-token question"
    )
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
