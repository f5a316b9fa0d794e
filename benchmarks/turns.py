"""Conversations taking turns, without any explicit cache: what of them is computed again?

    python benchmarks/turns.py            # 11M shape, 8 conversations of 10 turns
    python benchmarks/turns.py --quick    # 3 conversations of 3 turns

All conversations begin with one system message. In each round every conversation has its turn, in an
order drawn anew; the server's own answers are sent back as assistant messages. The minimum is what
no token computed before could stand for: each prompt less its longest common beginning with any
prompt and answer that this server has evaluated. Both servers have fewer slots than there are
conversations; the peer may keep what it likes in RAM.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from harness import report
from harness.answer import Answer
from harness.crowd import Server
from harness.models import model_file
from harness.ours import Mooring, settings
from harness.peer import Peer, PeerSettings, peer_python
from harness.prompts import Message, Prompts

Ask = Callable[[list[Message]], Answer]


@dataclass(frozen=True)
class Turn:
    """What one turn of one conversation took."""

    conversation: int
    turn: int
    prompt_tokens: int
    computed_tokens: int
    minimum_tokens: int
    first_token_s: float


def main() -> None:
    arguments = parse_arguments()
    model = model_file(arguments.shape)
    prompts = Prompts(model)
    with tempfile.TemporaryDirectory(prefix="mooring-turns-") as directory:
        rows = {"Mooring": run_mooring(model, prompts, Path(directory), arguments)}
        if not arguments.no_peer:
            rows["llama.cpp"] = run_peer(model, prompts, Path(directory), arguments)
    prompts.close()
    figures = report.describe(
        "turns",
        shape=arguments.shape,
        conversations=arguments.conversations,
        turns=arguments.turns,
        system_tokens=arguments.system_tokens,
        answer_tokens=arguments.answer_tokens,
        slots=arguments.slots,
        rows=rows,
    )
    show(figures)
    name = "turns" + ("-quick" if arguments.quick else "")
    plot(figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__, shape="demo")
    report.peer_arguments(parser)
    parser.add_argument("--conversations", type=int, default=8, help="[%(default)s]")
    parser.add_argument("--turns", type=int, default=10, help="of each [%(default)s]")
    parser.add_argument("--slots", type=int, default=4, help="answers at once [%(default)s]")
    parser.add_argument("--system-tokens", type=int, default=512, help="[%(default)s]")
    parser.add_argument("--answer-tokens", type=int, default=48, help="[%(default)s]")
    parser.add_argument("--quick", action="store_true", help="3 conversations of 3 turns")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.conversations, arguments.turns, arguments.slots = 3, 3, 2
    return arguments


def cells(arguments: argparse.Namespace) -> int:
    """Room for as many whole conversations as there are slots, and one more."""
    each = arguments.system_tokens + arguments.turns * (arguments.answer_tokens + 64) + 64
    return (arguments.slots + 1) * (-(-each // 256) * 256)


def run_mooring(
    model: Path, prompts: Prompts, work: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    # A sequence more for each slot: what is resident without an answer running counts too.
    engine = {
        "threads": arguments.threads,
        "sequences": 2 * arguments.slots,
        "cells": cells(arguments),
    }
    with Mooring(work / "data", model, settings(engine=engine)) as server:
        return converse(
            server,
            lambda messages: server.ask(*messages, tokens=arguments.answer_tokens),
            prompts,
            arguments,
        )


def run_peer(model: Path, prompts: Prompts, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    peer = PeerSettings(
        slots=arguments.slots,
        n_ctx=cells(arguments),
        threads=arguments.threads,
        cache_ram_mib=8192,  # its default, far more than it needs
        cache_idle_slots=True,
        flash_attention="auto",
    )
    with Peer(peer_python(arguments.peer_venv), model, peer, work / "peer.log") as server:
        return converse(
            server,
            lambda messages: server.ask(prompts.render(*messages), tokens=arguments.answer_tokens),
            prompts,
            arguments,
        )


def converse(
    server: Server, ask: Ask, prompts: Prompts, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Every conversation's every turn; the totals and each turn's figures."""
    system = prompts.system(arguments.system_tokens)
    conversations: list[list[Message]] = [[system] for _ in range(arguments.conversations)]
    questions = prompts.questions(arguments.conversations * arguments.turns)
    evaluated = Evaluated()
    order = random.Random(0)
    turns: list[Turn] = []
    computed, cpu_s = server.computed_tokens, server.cpu_s
    for turn in range(arguments.turns):
        for number in order.sample(range(arguments.conversations), arguments.conversations):
            messages = conversations[number]
            messages.append(questions.pop())
            prompt = prompts.render(*messages)
            answer = ask(messages)
            assert answer.prompt_tokens == len(prompt), (answer.prompt_tokens, len(prompt))
            minimum = evaluated.new_tokens(prompt)
            # The last token drawn is never evaluated, so nobody has its KV.
            evaluated.add([*prompt, *prompts.tokens(answer.text)[:-1]])
            messages.append({"role": "assistant", "content": answer.text})
            turns.append(
                Turn(
                    conversation=number,
                    turn=turn,
                    prompt_tokens=len(prompt),
                    computed_tokens=answer.computed_tokens,
                    minimum_tokens=minimum,
                    first_token_s=answer.first_token_s,
                )
            )
        done = [one for one in turns if one.turn == turn]
        report.say(
            f"{server.name}, turn {turn + 1}: computed {sum(one.computed_tokens for one in done):,}"
            f" tokens, minimum {sum(one.minimum_tokens for one in done):,}"
        )
    return totals(turns, server.computed_tokens - computed, server.cpu_s - cpu_s)


class Evaluated:
    """Every token sequence that a server has evaluated; compares with all: no tree to trust."""

    def __init__(self) -> None:
        self._sequences: list[list[int]] = []

    def add(self, tokens: list[int]) -> None:
        self._sequences.append(tokens)

    def new_tokens(self, prompt: list[int]) -> int:
        """At least one: without evaluating a token there are no logits."""
        known = max((_common(prompt, other) for other in self._sequences), default=0)
        return max(len(prompt) - known, 1)


def _common(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def totals(turns: list[Turn], computed: int, cpu_s: float) -> dict[str, Any]:
    minimum = sum(turn.minimum_tokens for turn in turns)
    firsts = [turn.first_token_s for turn in turns]
    by_turn = [
        [t.computed_tokens for t in turns if t.turn == number]
        for number in range(max(turn.turn for turn in turns) + 1)
    ]
    return {
        "prompt_tokens": sum(turn.prompt_tokens for turn in turns),
        "minimum_tokens": minimum,
        "prompt_tokens_evaluated": computed,
        "over_minimum": computed / minimum,
        "cpu_s": cpu_s,
        "ttft_p50_s": report.percentile(firsts, 50),
        "ttft_p95_s": report.percentile(firsts, 95),
        "computed_by_turn": [sum(values) for values in by_turn],
        "minimum_by_turn": [
            sum(t.minimum_tokens for t in turns if t.turn == number) for number in range(len(by_turn))
        ],
    }


def show(figures: dict[str, Any]) -> None:
    report.table(
        f"{figures['conversations']} conversations of {figures['turns']} turns in turn,"
        f" {figures['shape']} shape, {figures['slots']} slots, no explicit cache",
        ["", "prompt tokens", "minimum", "evaluated", "over minimum", "CPU s", "TTFT p50 ms", "p95 ms"],
        [
            [
                name,
                f"{row['prompt_tokens']:,}",
                f"{row['minimum_tokens']:,}",
                f"{row['prompt_tokens_evaluated']:,}",
                f"{row['over_minimum']:.2f}",
                f"{row['cpu_s']:.1f}",
                *(f"{1000 * row[key]:.0f}" for key in ("ttft_p50_s", "ttft_p95_s")),
            ]
            for name, row in figures["rows"].items()
        ],
    )


def plot(figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chart, axes = plt.subplots(figsize=(7, 3.4))
    numbers = range(1, figures["turns"] + 1)
    colours = {"Mooring": report.OURS, "llama.cpp": report.PEER}
    for row, values in figures["rows"].items():
        axes.plot(numbers, values["computed_by_turn"], "o-", color=colours[row], label=row)
    minimum = figures["rows"]["Mooring"]["minimum_by_turn"]
    axes.plot(numbers, minimum, "--", color=report.OTHER, label="minimum")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("turn")
    axes.set_ylabel("prompt tokens evaluated,\nall conversations")
    axes.legend()
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
