"""One user and no caching: what a server takes on top of the model's own work.

    python benchmarks/overhead.py                # 387M shape
    python benchmarks/overhead.py --shape demo   # 11M shape: a step takes a millisecond, nothing hides

Raw llama-cpp-python (the library Mooring embeds, no server), Mooring and the peer take turns, in an
order that turns round each time; every request has a text of its own. Two figures of each: prompt
tokens a second up to the first token, over a long prompt with one token of answer; and generated
tokens a second after the first one, over a short prompt with a long answer.

The peer's wheel is another version of llama.cpp and compiled for AVX2, Mooring's library for the
machine it is on. So the ratio to the peer compares builds as well; the raw library is the same build.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from harness import report
from harness.floor import Raw
from harness.models import model_file
from harness.ours import Mooring, settings
from harness.peer import Peer, PeerSettings, peer_python
from harness.prompts import Message, Prompts

RAW, MOORING, PEER = "raw library", "Mooring", "llama.cpp"
_TARGET = 0.95


@dataclass(frozen=True)
class Case:
    """A prompt, and how much of an answer is wanted."""

    message: Message
    prompt: list[int]
    answer_tokens: int


Contender = Callable[[Case], tuple[float, float]]
"""Seconds until the first and until the last token."""


def main() -> None:
    arguments = parse_arguments()
    model = model_file(arguments.shape)
    prompts = Prompts(model)
    rounds = [make_round(prompts, number, arguments) for number in range(1 + arguments.pairs)]
    prompts.close()
    with tempfile.TemporaryDirectory(prefix="mooring-overhead-") as directory, ExitStack() as stack:
        contenders = start(model, Path(directory), arguments, stack)
        rates = measure(contenders, rounds)
    figures = report.describe(
        "overhead",
        shape=arguments.shape,
        threads=arguments.threads,
        flash_attention=arguments.flash_attention,
        automatic_reuse=not arguments.no_automatic_reuse,
        prompt_tokens=len(rounds[0][0].prompt),
        answer_tokens=arguments.answer_tokens,
        target=_TARGET,
        rates=rates,
        ratios=ratios(rates),
    )
    show(figures)
    name = f"overhead-{arguments.shape}"
    plot(figures, arguments.out, name)
    report.write(figures, arguments.out, name)


def parse_arguments() -> argparse.Namespace:
    parser = report.arguments(__doc__)
    report.peer_arguments(parser)
    parser.add_argument("--pairs", type=int, default=7, help="turns of each [%(default)s]")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="[%(default)s]")
    parser.add_argument("--answer-tokens", type=int, default=48, help="[%(default)s]")
    parser.add_argument("--flash-attention", action="store_true", help="on for all of them")
    parser.add_argument(
        "--no-automatic-reuse", action="store_true", help="switch it off in Mooring: what it costs"
    )
    return parser.parse_args()


def make_round(prompts: Prompts, number: int, arguments: argparse.Namespace) -> list[Case]:
    """A long prompt and a short one that nobody has sent before."""
    (short,) = prompts.questions(1, seed=number)
    long = prompts.system(arguments.prompt_tokens, short["content"][:6]) | {"role": "user"}
    return [
        Case(long, prompts.render(long), 1),
        Case(short, prompts.render(short), arguments.answer_tokens),
    ]


def start(
    model: Path, work: Path, arguments: argparse.Namespace, stack: ExitStack
) -> dict[str, Contender]:
    """All of them run all the time; idle ones sleep."""
    threads, flash = arguments.threads, arguments.flash_attention
    cells = -(-(arguments.prompt_tokens + arguments.answer_tokens + 256) // 256) * 256
    raw = Raw(model, cells=cells, threads=threads, flash_attention=flash)
    stack.callback(raw.close)
    engine = {"threads": threads, "flash_attention": flash}
    if arguments.no_automatic_reuse:
        engine["automatic_reuse"] = False
    ours = stack.enter_context(Mooring(work / "data", model, settings(engine=engine)))

    def ask_mooring(case: Case) -> tuple[float, float]:
        answer = ours.ask(case.message, tokens=case.answer_tokens)
        assert answer.cached_tokens < 16, answer  # at most the template's first words
        assert (answer.prompt_tokens, answer.tokens) == (len(case.prompt), case.answer_tokens)
        return answer.first_token_s, answer.last_token_s

    contenders = {RAW: lambda case: raw.answer(case.prompt, case.answer_tokens), MOORING: ask_mooring}
    if not arguments.no_peer:
        peer = PeerSettings(
            slots=1, n_ctx=cells, threads=threads, flash_attention="on" if flash else "off"
        )
        server = stack.enter_context(
            Peer(peer_python(arguments.peer_venv), model, peer, work / "peer.log")
        )

        def ask_peer(case: Case) -> tuple[float, float]:
            answer = server.ask(case.prompt, tokens=case.answer_tokens)
            assert answer.cached_tokens < 16, answer
            assert (answer.prompt_tokens, answer.tokens) == (len(case.prompt), case.answer_tokens)
            return answer.first_token_s, answer.last_token_s

        contenders[PEER] = ask_peer
    return contenders


def measure(
    contenders: dict[str, Contender], rounds: Sequence[Sequence[Case]]
) -> dict[str, dict[str, list[float]]]:
    """Tokens a second by contender, a value a turn; the first round warms up."""
    rates: dict[str, dict[str, list[float]]] = {
        name: {"prompt": [], "generation": []} for name in contenders
    }
    order = list(contenders)
    for number, (long, short) in enumerate(rounds):
        said = []
        for name in order:
            first_s, _ = contenders[name](long)
            started_s, ended_s = contenders[name](short)
            prompt_rate = len(long.prompt) / first_s
            generation_rate = (short.answer_tokens - 1) / (ended_s - started_s)
            said.append(f"{name} {prompt_rate:,.0f} and {generation_rate:,.1f}")
            if number > 0:
                rates[name]["prompt"].append(prompt_rate)
                rates[name]["generation"].append(generation_rate)
        order.reverse()
        report.say(("Warming up: " if number == 0 else f"Turn {number}: ") + "; ".join(said))
    return rates


def ratios(rates: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Medians over the turns of Mooring's rate over another's."""
    return {
        other: {
            kind: statistics.median(
                ours / theirs for ours, theirs in zip(rates[MOORING][kind], values, strict=True)
            )
            for kind, values in rates[other].items()
        }
        for other in rates
        if other != MOORING
    }


def show(figures: dict[str, Any]) -> None:
    rows = []
    for name, rates in figures["rates"].items():
        medians = [statistics.median(rates[kind]) for kind in ("prompt", "generation")]
        over = figures["ratios"].get(name)
        cells = [f"{over[kind]:.3f}" if over else "" for kind in ("prompt", "generation")]
        rows.append([name, f"{medians[0]:,.1f}", cells[0], f"{medians[1]:,.1f}", cells[1]])
    report.table(
        f"One user, no caching, {figures['shape']} shape, prompt of {figures['prompt_tokens']},"
        f" answer of {figures['answer_tokens']}; target {figures['target']}",
        ["", "prompt tokens/s", "Mooring over it", "generated tokens/s", "Mooring over it"],
        rows,
    )


def plot(figures: dict[str, Any], out: Path, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chart, axes = plt.subplots(1, 2, figsize=(8, 3))
    rates = figures["rates"]
    for axis, kind in zip(axes, ("prompt", "generation"), strict=True):
        axis.boxplot([rates[row][kind] for row in rates], orientation="horizontal", whis=(0, 100))
        axis.set_yticks(range(1, 1 + len(rates)), list(rates))
        axis.invert_yaxis()
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{kind} tokens/s")
    axes[1].set_yticklabels([])
    chart.suptitle(f"One user, no caching, {figures['shape']} shape")
    chart.tight_layout()
    chart.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
