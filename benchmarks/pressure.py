"""More explicit contexts than RAM has room for, asked about for half an hour of traffic, compressed.

    python benchmarks/pressure.py            # 11M shape, 64 contexts of 2,048 tokens, RAM for a quarter
    python benchmarks/pressure.py --quick    # 16 contexts of 512 tokens, 2 minutes

Requests arrive as they would in 30 minutes, at random times, each moment 30 times as fast; which
context one is about follows Zipf's law. Every tenth request is a text of its own that nobody asks
about again, as real traffic has. Both servers get the same arrivals, the same prompts, the same RAM
for what is not in their slots, and have computed every context once before the clock starts. A hit is
a request that took the whole context from somewhere; the peer takes no names, so there it is one that
computed no more than its question.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.progress import track

from harness import report
from harness.answer import Answer
from harness.crowd import Server
from harness.ours import Mooring, settings
from harness.peer import Peer, PeerSettings, peer_python
from harness.traffic import Arrival, Traffic, make_traffic

_USERS = 32
"""Threads that wait for answers: as many requests can be on their way."""


@dataclass(frozen=True)
class Served:
    """What came of one arrival."""

    arrival: Arrival
    answer: Answer
    waited_s: float
    """From when it should have been sent to its first token."""


def main() -> None:
    arguments = parse_arguments()
    traffic = make_traffic(arguments)
    with tempfile.TemporaryDirectory(prefix="mooring-pressure-") as directory:
        rows = {"Mooring": run_mooring(traffic, Path(directory), arguments)}
        if not arguments.no_peer:
            rows["llama.cpp"] = run_peer(traffic, Path(directory), arguments)
    figures = report.describe(
        "pressure",
        shape=arguments.shape,
        contexts=arguments.contexts,
        context_tokens=arguments.tokens,
        ram_bytes=traffic.ram_bytes,
        simulated_minutes=arguments.minutes,
        speed=arguments.speed,
        zipf=arguments.zipf,
        requests=len(traffic.arrivals),
        one_off_requests=sum(arrival.context is None for arrival in traffic.arrivals),
        rows=rows,
    )
    show(figures)
    name = "pressure" + ("-quick" if arguments.quick else "")
    plot(figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__, shape="demo")
    report.peer_arguments(parser)
    parser.add_argument("--contexts", type=int, default=64, help="[%(default)s]")
    parser.add_argument("--tokens", type=int, default=2048, help="of each [%(default)s]")
    parser.add_argument("--ram-share", type=float, default=0.25, help="of their bytes [%(default)s]")
    parser.add_argument("--minutes", type=float, default=30, help="of traffic [%(default)s]")
    parser.add_argument("--speed", type=float, default=30, help="times as fast [%(default)s]")
    parser.add_argument("--per-minute", type=float, default=10, help="requests [%(default)s]")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent [%(default)s]")
    parser.add_argument("--one-off", type=float, default=0.1, help="share of requests [%(default)s]")
    parser.add_argument("--slots", type=int, default=4, help="of the peer; room for ours [%(default)s]")
    parser.add_argument("--answer-tokens", type=int, default=16, help="[%(default)s]")
    parser.add_argument("--quick", action="store_true", help="16 contexts of 512 tokens, 2 minutes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.contexts, arguments.tokens, arguments.minutes = 16, 512, 2
    return arguments


def cells(arguments: argparse.Namespace) -> int:
    """Room in the KV buffer for as many whole requests as there are slots."""
    return arguments.slots * (-(-(arguments.tokens + arguments.answer_tokens + 256) // 256) * 256)


def run_mooring(traffic: Traffic, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    engine = {
        "threads": arguments.threads,
        "cells": cells(arguments),
        "sequences": 4 * arguments.slots,
    }
    config = settings(engine=engine, kvstore={"ram_bytes": traffic.ram_bytes})
    report.say("Mooring: creating the contexts")
    with Mooring(work / "data", traffic.model, config) as server:
        caches = [server.keep(system) for system in track(traffic.systems, transient=True)]
        before = server.cached_from()
        recomputed = server.process.metric("mooring_prefix_recomputed_total")

        def ask(arrival: Arrival) -> Answer:
            first = [] if arrival.context is None else [caches[arrival.context]]
            return server.ask(*first, *arrival.messages, tokens=arguments.answer_tokens)

        figures = serve(server, ask, traffic)
        taken = {tier: count - before[tier] for tier, count in server.cached_from().items()}
        again = server.process.metric("mooring_prefix_recomputed_total") - recomputed
    return figures | {"cached_tokens_from": taken, "contexts_recomputed": int(again)}


def run_peer(traffic: Traffic, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    peer = PeerSettings(
        slots=arguments.slots,
        n_ctx=cells(arguments),
        threads=arguments.threads,
        cache_ram_mib=-(-traffic.ram_bytes // (1 << 20)),
        cache_idle_slots=True,
        flash_attention="auto",
    )
    with Peer(peer_python(arguments.peer_venv), traffic.model, peer, work / "peer.log") as server:
        report.say("llama.cpp: computing the contexts")
        for prefix in track(traffic.prefixes, transient=True):
            server.ask(prefix, tokens=1)

        def ask(arrival: Arrival) -> Answer:
            return server.ask(arrival.prompt, tokens=arguments.answer_tokens)

        return serve(server, ask, traffic)


def serve(server: Server, ask: Callable[[Arrival], Answer], traffic: Traffic) -> dict[str, Any]:
    """Send every request when its time comes; figures of all of them."""
    last = traffic.arrivals[-1].at_s
    report.say(f"{server.name}: {len(traffic.arrivals)} requests in {last:.0f} s")
    computed, cpu_s = server.computed_tokens, server.cpu_s
    with ThreadPoolExecutor(_USERS) as users:
        begun = time.perf_counter()

        def one(arrival: Arrival) -> Served:
            time.sleep(max(0.0, begun + arrival.at_s - time.perf_counter()))
            sent = time.perf_counter() - begun
            answer = ask(arrival)
            return Served(arrival, answer, sent + answer.first_token_s - arrival.at_s)

        served = list(
            track(users.map(one, traffic.arrivals), total=len(traffic.arrivals), transient=True)
        )
        wall_s = time.perf_counter() - begun
    return summarise(served, traffic) | {
        "prompt_tokens_evaluated": server.computed_tokens - computed,
        "cpu_s": server.cpu_s - cpu_s,
        "wall_s": wall_s,
    }


def summarise(served: Sequence[Served], traffic: Traffic) -> dict[str, Any]:
    about = [one for one in served if one.arrival.context is not None]
    hits = [one for one in about if is_hit(one, traffic)]
    waits = [one.waited_s for one in about]
    return {
        "explicit_requests": len(about),
        "explicit_hits": len(hits),
        "hit_percent": 100 * len(hits) / len(about),
        "prompt_tokens": sum(one.answer.prompt_tokens for one in served),
        "minimum_tokens": sum(
            len(one.arrival.prompt)
            - (0 if one.arrival.context is None else len(traffic.prefixes[one.arrival.context]))
            for one in served
        ),
        "ttft_p50_s": report.percentile(waits, 50),
        "ttft_p95_s": report.percentile(waits, 95),
        "ttft_p99_s": report.percentile(waits, 99),
    }


def is_hit(one: Served, traffic: Traffic) -> bool:
    assert one.arrival.context is not None
    return one.answer.cached_tokens >= len(traffic.prefixes[one.arrival.context])


def show(figures: dict[str, Any]) -> None:
    report.table(
        f"{figures['requests']} requests about {figures['contexts']} contexts of"
        f" {figures['context_tokens']:,} tokens, {figures['shape']} shape,"
        f" {figures['ram_bytes'] / 1e6:.0f} MB of RAM",
        ["", "hits", "evaluated", "minimum", "CPU s", "TTFT p50 ms", "p95 ms", "p99 ms", "wall s"],
        [
            [
                name,
                f"{row['hit_percent']:.1f} %",
                f"{row['prompt_tokens_evaluated']:,}",
                f"{row['minimum_tokens']:,}",
                f"{row['cpu_s']:.1f}",
                *(f"{1000 * row[f'ttft_{p}_s']:.0f}" for p in ("p50", "p95", "p99")),
                f"{row['wall_s']:.0f}",
            ]
            for name, row in figures["rows"].items()
        ],
    )
    ours = figures["rows"]["Mooring"]
    taken = ", ".join(f"{tier} {count:,}" for tier, count in ours["cached_tokens_from"].items())
    report.console.print(f"Mooring took tokens from: {taken}")
    report.console.print(f"Contexts computed again: {ours['contexts_recomputed']}")


def plot(figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chart, axes = plt.subplots(1, 3, figsize=(9, 2.6))
    rows = figures["rows"]
    colours = [report.OURS if row == "Mooring" else report.PEER for row in rows]
    panels = {
        "hit_percent": "hits, %",
        "prompt_tokens_evaluated": "prompt tokens evaluated",
        "ttft_p95_s": "TTFT p95, s",
    }
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        bars = axis.bar(list(rows), [row[key] for row in rows.values()], color=colours)
        axis.bar_label(bars, [f"{row[key]:,.4g}" for row in rows.values()])
        axis.margins(y=0.2)
        axis.set_title(label, fontsize=10)
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
