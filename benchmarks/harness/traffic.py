"""Requests about many contexts, at random times and with favourites, that two servers can be asked."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from harness.models import model_file
from harness.prompts import Message, Prompts


@dataclass(frozen=True)
class Arrival:
    """One request."""

    at_s: float
    """After the clock's start, compressed."""
    context: int | None
    """Which context it is about; None is a text of its own."""
    messages: list[Message]
    """The question after its context, or that text."""
    prompt: list[int]
    """All of it as token ids, context included."""


@dataclass(frozen=True)
class Traffic:
    """All that both servers are asked."""

    model: Path
    systems: list[Message]
    prefixes: list[list[int]]
    arrivals: list[Arrival]
    ram_bytes: int


def make_traffic(arguments: argparse.Namespace) -> Traffic:
    model = model_file(arguments.shape)
    prompts = Prompts(model)
    systems = [
        prompts.system(arguments.tokens, f"{number} manual")
        for number in track(range(arguments.contexts), "Contexts", transient=True)
    ]
    prefixes = [prompts.prefix(system) for system in systems]
    kept_bytes = sum(map(len, prefixes)) * prompts.kv_bytes_per_token
    traffic = Traffic(
        model=model,
        systems=systems,
        prefixes=prefixes,
        arrivals=make_arrivals(prompts, systems, arguments),
        ram_bytes=int(arguments.ram_share * kept_bytes),
    )
    prompts.close()
    return traffic


def make_arrivals(
    prompts: Prompts, systems: Sequence[Message], arguments: argparse.Namespace
) -> list[Arrival]:
    drawn = np.random.default_rng(0)
    count = round(arguments.minutes * arguments.per_minute)
    times = np.sort(drawn.uniform(0, 60 * arguments.minutes, count)) / arguments.speed
    weights = 1 / np.arange(1, len(systems) + 1) ** arguments.zipf
    chosen = drawn.choice(len(systems), count, p=weights / weights.sum())
    one_off = drawn.random(count) < arguments.one_off
    questions = prompts.questions(count)
    text = prompts.system(arguments.tokens // 2)["content"]
    arrivals = []
    for number in track(range(count), "Requests", transient=True):
        question = questions[number]
        if one_off[number]:
            context, before = None, []
            question = {"role": "user", "content": f"{question['content']}\n{text}"}
        else:
            context = int(chosen[number])
            before = [systems[context]]
        prompt = prompts.render(*before, question)
        arrivals.append(Arrival(float(times[number]), context, [question], prompt))
    return arrivals
