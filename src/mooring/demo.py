"""`mooring demo`: the same questions about a manual, with a cache and without, side by side."""

import json
import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mooring.app import Services, bundled, run_services
from mooring.config import load_config
from mooring.core.context import NewCache
from mooring.core.conversation import Message
from mooring.core.usage import Usage
from mooring.engine.interface import Delta, Finished, Progress, Sampling
from mooring.progress import loading_bar, make_bars
from mooring.service.billing import begun_minutes, chat_fee, creation_fee, storage_fee
from mooring.service.chat import ChatRequest
from mooring.service.pricing import NANO, PricePlan, load_plans
from mooring.service.use import CacheUse

_TENANT = "demo"
_MODEL = "moonshot-v1"
_ANSWER_TOKENS = 48
_TTL_S = 3600


@dataclass(frozen=True)
class Question:
    """A question about the manual, and what a right answer contains."""

    question: str
    answer: str

    def is_answered_by(self, text: str) -> bool:
        """As a whole: "28 bar" does not answer "8 bar"."""
        whole = rf"(?<![\w.,]){re.escape(self.answer)}(?!\w)"
        return re.search(whole, text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Asked:
    """One question's figures."""

    ttft_s: float
    usage: Usage
    hit: bool
    right: bool


async def run_demo(model: str | None, count: int, console: Console) -> None:
    """Make a cache of the bundled manual, ask about it twice, print the comparison.

    Raises:
        StartRefused: the model cannot be loaded.
    """
    manual = bundled("manual.md").read_text("utf-8")
    listed = json.loads(bundled("questions.json").read_text("utf-8"))
    questions = [Question(**entry) for entry in listed][:count]
    with tempfile.TemporaryDirectory(prefix="mooring-demo-") as directory:
        overrides: dict[str, dict[str, Any]] = {
            "server": {"data_dir": Path(directory)},
            "model": {"source": model},
            "engine": {
                "automatic_reuse": False
            },  # else the questions without a cache would share it, too
        }
        config = load_config(None, overrides)
        with ExitStack() as bars:
            on_progress = bars.enter_context(loading_bar(console))
            async with run_services(config, on_progress) as services:
                bars.close()
                await _compare(services, manual, questions, console)


async def _compare(services: Services, manual: str, questions: list[Question], console: Console) -> None:
    if services.engine.model.random_weights:
        console.print("[yellow]The model has random weights: its answers mean nothing.[/]\n")
    system: Message = {"role": "system", "content": f"Answer from this manual.\n\n{manual}"}
    begun = time.monotonic()
    cache_id, held_tokens = await _make_cache(services, system, console)
    made_s = time.monotonic() - begun
    console.print(f"Cached a manual of {held_tokens:,} tokens in {made_s:.1f} s as {cache_id}.\n")

    console.rule("with the cache")
    use = CacheUse(cache_id, reset_ttl_s=_TTL_S)
    cached = [await _ask(services, (), use, question, console) for question in questions]
    lived_s = int(time.monotonic() - begun) + 1
    console.rule("without")
    plain = [await _ask(services, (system,), None, question, console) for question in questions]
    plan = load_plans({})["yuan-2024"]
    console.print(_table(cached, plain, held_tokens, lived_s, services, plan))
    console.print(
        "Prompt tokens computed are the engine's own count. The price is what Moonshot published in"
        f" July 2024 for its 8k model;\nthe cache's includes its creation and {begun_minutes(lived_s)}"
        " begun minute(s) of storage."
    )


async def _make_cache(services: Services, system: Message, console: Console) -> tuple[str, int]:
    with make_bars(console) as bars:
        bar = bars.add_task("Computing the manual", total=None)

        def on_progress(progress: Progress) -> None:
            bars.update(bar, completed=progress.evaluated_tokens, total=progress.total_tokens)

        new = NewCache(_MODEL, (system,), name="manual", ttl_s=_TTL_S)
        cache = await services.contexts.create(_TENANT, new, on_progress)
        await services.contexts.wait(_TENANT, cache.id)
    return cache.id, cache.tokens


async def _ask(
    services: Services,
    before: tuple[Message, ...],
    use: CacheUse | None,
    question: Question,
    console: Console,
) -> Asked:
    """Ask one question and print the answer as it streams."""
    request = ChatRequest(
        model=_MODEL,
        messages=(*before, {"role": "user", "content": question.question}),
        sampling=Sampling(max_tokens=_ANSWER_TOKENS, temperature=0),
        cache=use,
    )
    console.print(f"[bold]{question.question}[/]", highlight=False)
    said = ""
    begun = time.monotonic()
    first_at: float | None = None
    usage: Usage | None = None
    bars = make_bars(console)
    bar = bars.add_task("Computing the prompt", total=None)
    bars.start()
    try:
        answer = await services.chat.begin(_TENANT, request)
        async for event in answer.events:
            match event:
                case Progress(done, total):
                    bars.update(bar, completed=done, total=total)
                case Delta(_, text):
                    if first_at is None:
                        first_at = time.monotonic()
                        bars.stop()
                    said += text
                    console.print(_printable(text), end="", markup=False, highlight=False)
                case Finished(counted):
                    usage = counted
    finally:
        bars.stop()
    assert usage is not None
    ttft_s = (first_at or time.monotonic()) - begun
    right = question.is_answered_by(said)
    console.print(
        f"\n[dim]{'right' if right else f'wrong, it is: {question.answer}'};"
        f" first token after {ttft_s * 1000:,.0f} ms,"
        f" {usage.prompt_tokens - usage.cached_tokens:,} of {usage.prompt_tokens:,} prompt tokens"
        " computed[/]\n"
    )
    return Asked(ttft_s, usage, answer.hit is not None, right)


def _table(
    cached: list[Asked],
    plain: list[Asked],
    held_tokens: int,
    lived_s: int,
    services: Services,
    plan: PricePlan,
) -> Table:
    title = f"{len(cached)} questions about one manual, model {services.engine.model.name}"
    if services.engine.model.random_weights:
        title += " (random weights: the answers mean nothing)"
    table = Table(title=title)
    table.add_column()
    for column in ("without cache", "with cache", "saving"):
        table.add_column(column, justify="right")
    ttft = [statistics.median(asked.ttft_s for asked in run) * 1000 for run in (plain, cached)]
    computed = [
        sum(asked.usage.prompt_tokens - asked.usage.cached_tokens for asked in run)
        for run in (plain, cached)
    ]
    computed[1] += held_tokens
    prices = plan.at(time.time()).prices("moonshot-v1-8k", held_tokens)
    price = [
        sum(chat_fee(prices, asked.usage, hit=asked.hit) for asked in run) for run in (plain, cached)
    ]
    price[1] += creation_fee(prices, held_tokens) + storage_fee(prices, held_tokens, lived_s)
    right = [f"{sum(asked.right for asked in run)} of {len(run)}" for run in (plain, cached)]
    table.add_row("answers that are right", *right, "")
    table.add_row("time to first token, median", *(f"{ms:,.1f} ms" for ms in ttft), _saving(*ttft))
    table.add_row("prompt tokens computed", *(f"{n:,}" for n in computed), _saving(*computed))
    table.add_row(f"price, {plan.currency}", *(f"{nano / NANO:.6f}" for nano in price), _saving(*price))
    return table


def _saving(without: float, with_cache: float) -> str:
    return f"{100 * (1 - with_cache / without):.1f} %"


def _printable(text: str) -> str:
    """Random weights produce control characters, and a terminal would obey them."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{MIDDLE DOT}"
        for character in text
    )
