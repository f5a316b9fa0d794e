"""Replay of a production-like trace through the real tree, store and eviction policies.

    python benchmarks/replay.py                  # about three minutes on 2 cores
    python benchmarks/replay.py my_trace.jsonl   # the same format

Each line of the trace is a request: `hash_ids` names the 512-token blocks of its prompt, where equal ids
mean equal tokens up to there. The device is simulated: a payload is one byte, and the RAM tier holds as
many bytes as there may be blocks. Everything else is the store that serves: prefix matching over real
labels of 512 tokens, pools, eviction of leaves only. The bound is Belady's: it knows the future, and
stores nothing that is never used again.

Then a tree of a million blocks, as after a restart: bytes of memory a block, operations a second.
"""

import argparse
import gc
import heapq
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mooring.config import KvStoreConfig
from mooring.kvstore.block import OnDisk
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.reuse import Reuse
from mooring.kvstore.space import DiskSpace
from mooring.kvstore.store import KvStore
from mooring.kvstore.tree import Tree

ROOT = Path(__file__).parents[1]
TRACE = ROOT.parent / "shared/traces/synthetic_trace.jsonl"
RESULTS = Path(__file__).parent / "results"
TRACE_BLOCK_TOKENS, BLOCK_TOKENS, TOKEN_BYTES = 512, 256, 4
BLOCKS_A_PATH = 55  # of their own, on average
NEVER = 1 << 60
PAYLOAD = np.zeros(1, np.uint8)

Request = list[int]
"""The ids of a prompt's blocks."""


@dataclass(frozen=True)
class Replay:
    """One policy in one size."""

    policy: str
    capacity_blocks: int | None
    hit_ratio: float
    seconds: float | None


@dataclass(frozen=True)
class Scale:
    """A tree of many blocks."""

    blocks: int
    bytes_a_block: float
    label_bytes_a_block: int
    inserted_a_second: float
    matched_blocks_a_second: float
    touched_blocks_a_second: float
    evicted_a_second: float


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    requests = [json.loads(line)["hash_ids"] for line in arguments.trace.read_text().splitlines()]
    scale = measure_scale(arguments.blocks)
    replays = []
    for capacity in [*arguments.capacities, None]:
        replays += [replay(requests, capacity, policy) for policy in ("lru", "reuse")]
        replays.append(Replay("belady", capacity, belady(requests, capacity), None))
    report = summarise(arguments.trace, requests, replays, scale)
    console.print(hit_table(replays, report))
    console.print(scale_table(scale))
    write(replays, report, arguments.out)
    console.print(f"written to {arguments.out}/replay.json and replay.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trace", type=Path, nargs="?", default=TRACE, help=f"default: {TRACE}")
    parser.add_argument(
        "--capacities", type=int, nargs="*", default=[1000, 3000, 10_000, 20_000, 50_000]
    )
    parser.add_argument("--blocks", type=int, default=1_000_000, help="size of the large tree")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.trace.is_file():
        parser.error(f"no trace at {arguments.trace}: name one")
    return arguments


def replay(requests: list[Request], capacity: int | None, policy: str) -> Replay:
    """Hits are the blocks of a prompt that were held when it came, from its beginning."""
    labels = {block: label_of(block) for request in requests for block in request}
    config = KvStoreConfig(
        ram_bytes=NEVER if capacity is None else capacity, disk_bytes=0, policy=policy
    )
    hits = total = 0
    with tempfile.TemporaryDirectory(prefix="mooring-replay-") as directory:
        store = KvStore(Path(directory), "replay", config, block_tokens=TRACE_BLOCK_TOKENS)
        begun = time.perf_counter()
        for request in track(requests, f"{policy} in {size(capacity)}", transient=True):
            prompt = b"".join(labels[block] for block in request)
            match = store.match("tenant", prompt)
            store.touch(match.blocks)
            for cut in store.missing("tenant", prompt):
                store.add("tenant", prompt, cut, PAYLOAD)
            hits += match.tokens // TRACE_BLOCK_TOKENS
            total += len(request)
        seconds = time.perf_counter() - begun
        assert capacity is None or store.blocks <= capacity
        store.check()
        store.close()
    return Replay(policy, capacity, hits / total, seconds)


def label_of(block: int) -> bytes:
    return np.full(TRACE_BLOCK_TOKENS, block, "<i4").tobytes()


def belady(requests: list[Request], capacity: int | None) -> float:
    """Evicts what is used again last, and never takes in what is not used again: nothing hits more."""
    upcoming: dict[int, int] = {}
    next_use: list[list[int]] = []
    for number in range(len(requests) - 1, -1, -1):
        next_use.append([upcoming.get(block, NEVER) for block in requests[number]])
        upcoming.update(dict.fromkeys(requests[number], number))
    next_use.reverse()
    held: dict[int, int] = {}
    order: list[tuple[int, int, int]] = []
    hits = total = 0
    for request, uses in zip(requests, next_use, strict=True):
        for depth, (block, use) in enumerate(zip(request, uses, strict=True)):
            hits += block in held
            total += 1
            if use == NEVER:
                held.pop(block, None)
                continue
            held[block] = use
            heapq.heappush(order, (-use, -depth, block))
            while capacity is not None and len(held) > capacity:
                latest, _, victim = heapq.heappop(order)
                if held.get(victim) == -latest:
                    del held[victim]
    return hits / total


def measure_scale(count: int) -> Scale:
    """A tree of about so many blocks on disk: paths of 100 blocks, ten of which share the first 50."""
    with tempfile.TemporaryDirectory(prefix="mooring-scale-") as directory:
        tree = Tree(BLOCK_TOKENS)
        space = DiskSpace(DiskTier(Path(directory), "scale"), None, 0)
        holdings = Holdings(tree, Reuse(), space, ram_bytes=0, spill_bytes=0)
        paths = list(range(count // BLOCKS_A_PATH))
        gc.collect()
        before = resident_bytes()
        inserting = clock(lambda: sum(grow(tree, holdings, path) for path in track(paths, "Growing")))
        gc.collect()
        grown = resident_bytes() - before
        blocks = len(tree)
        some = paths[:: max(len(paths) // 500, 1)]
        prompts = [b"".join(labels_of(path)) for path in some]
        matched = [tree.match("tenant", prompt) for prompt in prompts]
        matching = clock(lambda: [tree.match("tenant", prompt) for prompt in prompts])
        touching = clock(lambda: [holdings.use(hit.block) for hits in matched for hit in reversed(hits)])
        evicted = min(100_000, blocks)
        space.budget_bytes = space.used_bytes - evicted * (4096 + 1)
        evicting = clock(lambda: holdings.make_disk_room(0))
        assert blocks - len(tree) == evicted
        holdings.check()
    found = sum(map(len, matched))
    return Scale(
        blocks=blocks,
        bytes_a_block=grown / blocks,
        label_bytes_a_block=BLOCK_TOKENS * TOKEN_BYTES,
        inserted_a_second=blocks / inserting,
        matched_blocks_a_second=found / matching,
        touched_blocks_a_second=found / touching,
        evicted_a_second=evicted / evicting,
    )


def grow(tree: Tree, holdings: Holdings, path: int) -> int:
    """Insert one path; ten in a row share their first fifty blocks."""
    prompt = b"".join(labels_of(path))
    for cut in tree.missing("tenant", prompt):
        parent = tree.parent_for("tenant", prompt, cut.start)
        assert parent is not None
        label = prompt[cut.start * TOKEN_BYTES : cut.end * TOKEN_BYTES]
        block = tree.insert(parent, label, 1)
        tree.remember("tenant", prompt[: cut.end * TOKEN_BYTES], block)
        holdings.restore(block, OnDisk.WRITTEN)
    return 0


def labels_of(path: int) -> Iterator[bytes]:
    for number in range(100):
        owner = path // 10 if number < 50 else path
        head = np.array([number < 50, owner, number], "<i4").tobytes()
        yield head.ljust(BLOCK_TOKENS * TOKEN_BYTES, b"\x01")


def clock(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size(capacity: int | None) -> str:
    return "unbounded" if capacity is None else f"{capacity:,}"


def summarise(trace: Path, requests: list[Request], replays: list[Replay], scale: Scale) -> dict:
    total = sum(map(len, requests))
    return {
        "benchmark": "replay",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "trace": trace.name,
        "requests": len(requests),
        "blocks": total,
        "distinct_blocks": len({block for request in requests for block in request}),
        "replays": [asdict(each) for each in replays],
        "scale": asdict(scale),
    }


def hit_table(replays: list[Replay], report: dict) -> Table:
    shown = Table(
        title=f"{report['trace']}: {report['requests']:,} requests, {report['blocks']:,} blocks,"
        f" {report['distinct_blocks']:,} distinct; blocks hit"
    )
    shown.add_column("capacity, blocks", justify="right")
    for column in ("plain LRU", "ours", "ours to LRU", "Belady (bound)", "gap closed", "blocks/s, ours"):
        shown.add_column(column, justify="right")
    for capacity in dict.fromkeys(each.capacity_blocks for each in replays):
        of = {each.policy: each for each in replays if each.capacity_blocks == capacity}
        lru, ours, bound = (of[name].hit_ratio for name in ("lru", "reuse", "belady"))
        gap = f"{100 * (ours - lru) / (bound - lru):.0f} %" if bound - lru > 1e-4 else ""
        shown.add_row(
            size(capacity),
            *(f"{100 * ratio:.2f} %" for ratio in (lru, ours)),
            f"{ours / lru:.3f}",
            f"{100 * bound:.2f} %",
            gap,
            f"{report['blocks'] / of['reuse'].seconds:,.0f}",
        )
    return shown


def scale_table(scale: Scale) -> Table:
    shown = Table(title=f"A tree of {scale.blocks:,} blocks of {BLOCK_TOKENS} tokens")
    shown.add_column("")
    shown.add_column("", justify="right")
    shown.add_row("bytes of memory a block", f"{scale.bytes_a_block:,.0f}")
    shown.add_row("  of which its tokens", f"{scale.label_bytes_a_block:,}")
    shown.add_row("blocks inserted a second", f"{scale.inserted_a_second:,.0f}")
    shown.add_row("blocks matched a second", f"{scale.matched_blocks_a_second:,.0f}")
    shown.add_row("uses noted a second", f"{scale.touched_blocks_a_second:,.0f}")
    shown.add_row("blocks evicted a second", f"{scale.evicted_a_second:,.0f}")
    return shown


def write(replays: list[Replay], report: dict, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "replay.json").write_text(json.dumps(report, indent=2) + "\n")
    figure, axes = plt.subplots(figsize=(7, 3.6))
    looks = {"belady": ("Belady (knows the future)", "#9aa5b1", "--"), "reuse": ("ours", "#2a6f97", "-")}
    looks["lru"] = ("plain LRU", "#c1666b", "-")
    for policy, (name, colour, line) in looks.items():
        points = [each for each in replays if each.policy == policy and each.capacity_blocks is not None]
        sizes = [each.capacity_blocks for each in points]
        ratios = [100 * each.hit_ratio for each in points]
        axes.plot(sizes, ratios, line, color=colour, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 70)
    axes.set_xlabel(f"blocks of {TRACE_BLOCK_TOKENS} tokens held (logarithmic)")
    axes.set_ylabel("blocks hit, %")
    axes.set_title(f"{report['trace']}, {report['blocks']:,} blocks asked for")
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "replay.png", dpi=120)


if __name__ == "__main__":
    main()
