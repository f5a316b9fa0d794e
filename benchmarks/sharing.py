"""Many users on one long context at once: does anybody compute it again?

    python benchmarks/sharing.py                              # 387M shape, 16 users, 4,096 tokens
    python benchmarks/sharing.py --quick                      # the same with 4 users and 512 tokens
    python benchmarks/sharing.py --shape demo --tokens 16384  # 11M shape

Mooring keeps the context explicitly and is started again, so that nothing is resident: its cold round
takes the context from disk. The peer's cold round finds empty slots, its warm ones find in every slot
the context and a question of before. Each user asks another question in each round.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from harness import report
from harness.answer import Answer
from harness.crowd import Round, Server, all_at_once
from harness.models import model_file
from harness.ours import Mooring, settings
from harness.peer import Peer, PeerSettings, peer_python
from harness.prompts import Message, Prompts

_OVERHEAD_CELLS = 256
"""For the template's own tokens, the question and the peer's rounding up, a user."""


@dataclass(frozen=True)
class Plan:
    """Who asks what."""

    model: Path
    system: Message
    prefix_tokens: int
    rounds: list[list[Message]]
    """Questions by round and user; the first round is the cold one."""
    prompts: list[list[list[int]]]
    """The same as token ids, context included."""
    answer_tokens: int
    threads: int

    @property
    def users(self) -> int:
        return len(self.rounds[0])

    @property
    def cells(self) -> int:
        """Room for every user's own copy of the context."""
        each = self.prefix_tokens + self.answer_tokens + _OVERHEAD_CELLS
        return self.users * (-(-each // 256) * 256)


def main() -> None:
    arguments = parse_arguments()
    plan = make_plan(arguments)
    with tempfile.TemporaryDirectory(prefix="mooring-sharing-") as directory:
        rows = run_mooring(plan, Path(directory))
        if not arguments.no_peer:
            rows |= run_peer(plan, Path(directory), arguments)
    figures = report.describe(
        "sharing",
        shape=arguments.shape,
        users=plan.users,
        prefix_tokens=plan.prefix_tokens,
        question_tokens=len(plan.prompts[0][0]) - plan.prefix_tokens,
        answer_tokens=plan.answer_tokens,
        threads=plan.threads,
        peer={"kv": arguments.peer_kv, "flash_attention": arguments.peer_flash_attention},
        rows=rows,
    )
    figures["ratios"] = ratios(rows)
    show(figures)
    name = f"sharing-{arguments.shape}" + ("-quick" if arguments.quick else "")
    plot(figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__)
    report.peer_arguments(parser)
    parser.add_argument("--tokens", type=int, default=4096, help="of the context [%(default)s]")
    parser.add_argument("--users", type=int, default=16, help="at once [%(default)s]")
    parser.add_argument("--answer-tokens", type=int, default=32, help="[%(default)s]")
    parser.add_argument("--warm-rounds", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--quick", action="store_true", help="4 users, 512 tokens")
    parser.add_argument(
        "--peer-kv", choices=["unified", "streams"], default="streams", help="its buffer [%(default)s]"
    )
    parser.add_argument(
        "--peer-flash-attention", choices=["off", "on", "auto"], default="auto", help="[%(default)s]"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.users = 512, 4
    return arguments


def make_plan(arguments: argparse.Namespace) -> Plan:
    model = model_file(arguments.shape)
    prompts = Prompts(model)
    system = prompts.system(arguments.tokens)
    asked = prompts.questions(arguments.users * (1 + arguments.warm_rounds))
    rounds = [asked[at : at + arguments.users] for at in range(0, len(asked), arguments.users)]
    plan = Plan(
        model=model,
        system=system,
        prefix_tokens=len(prompts.prefix(system)),
        rounds=rounds,
        prompts=[[prompts.render(system, question) for question in round_] for round_ in rounds],
        answer_tokens=arguments.answer_tokens,
        threads=arguments.threads,
    )
    prompts.close()
    return plan


def run_mooring(plan: Plan, work: Path) -> dict[str, dict[str, Any]]:
    config = settings(engine={"threads": plan.threads, "sequences": 2 * plan.users + 2})
    report.say(f"Mooring: computing a context of {plan.prefix_tokens:,} tokens")
    with Mooring(work / "data", plan.model, config) as server:
        cpu_s = server.cpu_s
        cache = server.keep(plan.system)
        creation = {"cpu_s": server.cpu_s - cpu_s, "prompt_tokens_evaluated": server.computed_tokens}
    with Mooring(work / "data", plan.model, config) as server:
        server.ask({"role": "user", "content": "Hi"}, tokens=2)  # pages the weights in
        rounds = []
        for number, questions in enumerate(plan.rounds):
            asks = [partial(server.ask, cache, q, tokens=plan.answer_tokens) for q in questions]
            rounds.append(run_round(server, number, asks))
        # Nothing was in memory; what one user read from disk another may have taken from RAM.
        assert server.cached_from()["disk"] > 0.9 * plan.prefix_tokens, server.cached_from()
    return {"Mooring, creation": creation} | by_warmth("Mooring", rounds)


def run_peer(plan: Plan, work: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    peer = PeerSettings(
        slots=plan.users,
        n_ctx=plan.cells,
        threads=plan.threads,
        unified=arguments.peer_kv == "unified",
        flash_attention=arguments.peer_flash_attention,
    )
    python = peer_python(arguments.peer_venv)
    with Peer(python, plan.model, peer, work / "peer.log") as server:
        server.ask(plan.prompts[0][0][-8:], tokens=2)
        rounds = []
        for number, prompts in enumerate(plan.prompts):
            asks = [
                partial(server.ask, prompt, tokens=plan.answer_tokens, slot=slot)
                for slot, prompt in enumerate(prompts)
            ]
            rounds.append(run_round(server, number, asks))
    return by_warmth("llama.cpp", rounds)


def run_round(server: Server, number: int, asks: list[partial[Answer]]) -> Round:
    report.say(f"{server.name}: {len(asks)} users at once, " + (f"warm {number}" if number else "cold"))
    return all_at_once(server, asks)


def by_warmth(name: str, rounds: list[Round]) -> dict[str, dict[str, Any]]:
    """The cold round's figures, and the warm ones' medians."""
    cold, *warm = [round_.figures() for round_ in rounds]
    medians = {key: statistics.median(figures[key] for figures in warm) for key in cold}
    return {f"{name}, cold": cold, f"{name}, warm": medians}


def ratios(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Mooring's over the peer's; below 1 is better, but for tokens a second."""
    if "llama.cpp, cold" not in rows:
        return {}
    return {
        f"{warmth} {key}": rows[f"Mooring, {warmth}"][key] / rows[f"llama.cpp, {warmth}"][key]
        for warmth in ("cold", "warm")
        for key in ("prompt_tokens_evaluated", "cpu_s", "ttft_p50_s", "ttft_p95_s", "tokens_per_s")
    }


def show(figures: dict[str, Any]) -> None:
    report.table(
        f"{title(figures)}, questions of {figures['question_tokens']},"
        f" answers of {figures['answer_tokens']}",
        ["", "evaluated", "CPU s", "TTFT p50 s", "p95 s", "tokens/s", "KV cells"],
        [
            [
                name,
                f"{row['prompt_tokens_evaluated']:,.0f}",
                f"{row['cpu_s']:.2f}",
                *(f"{row[k]:.2f}" if k in row else "" for k in ("ttft_p50_s", "ttft_p95_s")),
                f"{row['tokens_per_s']:.1f}" if "tokens_per_s" in row else "",
                f"{row['kv_cells']:,.0f}" if "kv_cells" in row else "",
            ]
            for name, row in figures["rows"].items()
        ],
    )
    if figures["ratios"]:
        shown = (f"{name} {ratio:.3f}" for name, ratio in figures["ratios"].items())
        report.console.print("Mooring over llama.cpp: " + ", ".join(shown))


def title(figures: dict[str, Any]) -> str:
    users, tokens = figures["users"], figures["prefix_tokens"]
    return f"{users} users at once on {tokens:,} tokens, {figures['shape']} shape"


def plot(figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = {row: f for row, f in figures["rows"].items() if "ttft_p50_s" in f}
    chart, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharey=True)
    panels = {
        "prompt_tokens_evaluated": "prompt tokens evaluated",
        "cpu_s": "CPU s",
        "ttft_p95_s": "TTFT p95, s",
    }
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        colours = [report.OURS if row.startswith("Mooring") else report.PEER for row in rows]
        bars = axis.barh(list(rows), [f[key] for f in rows.values()], color=colours)
        axis.bar_label(bars, [f"{f[key]:,.1f}".removesuffix(".0") for f in rows.values()], padding=3)
        axis.set_xscale("log")
        axis.margins(x=0.35)
        axis.set_xlabel(label)
    axes[0].invert_yaxis()
    chart.suptitle(title(figures))
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
