"""Asks the exported model about unseen documents and counts exact answers, greedy, through llama.cpp.

`python tools/demo_model/evaluate.py --questions 200` prints the table of the model card. Needs Mooring
itself and nothing of the training.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import llama_cpp
from conversations import INTRODUCTIONS
from documents import Document, make_document
from facts import answer
from tool_calls import CALL_BEGIN, CALL_END, ask_for, make_tools

from mooring.core.conversation import Conversation
from mooring.engine.template import ChatTemplate
from mooring.testing import bundled_model

SEED = 7_000_003
"""Training draws its documents from other seeds."""
PER_DOCUMENT = 5
ANSWER_TOKENS = 80


@dataclass(frozen=True)
class Case:
    """A question after the messages before it, and the one right answer."""

    messages: tuple[dict[str, str], ...]
    tools: tuple[dict[str, Any], ...]
    answer: str


class Reader:
    """The model: a conversation in, its answer out. Questions on one document share its computation."""

    def __init__(self, path: Path, threads: int | None) -> None:
        self._llama = llama_cpp.Llama(str(path), n_ctx=16_384, n_threads=threads, verbose=False)
        self._template = ChatTemplate(self._llama.metadata["tokenizer.chat_template"], bos="", eos="")

    def tokens(self, text: str) -> list[int]:
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def prompt(self, case: Case) -> list[int]:
        conversation = Conversation(case.messages, case.tools, date(2024, 7, 1))
        return self.tokens(self._template.render(conversation, for_answer=True))

    def answer(self, case: Case) -> str:
        said: list[int] = []
        for token in self._llama.generate(self.prompt(case), temp=0.0):
            if token == self._llama.token_eos() or len(said) == ANSWER_TOKENS:
                break
            said.append(token)
        return self._llama.detokenize(said).decode(errors="replace")


def sized_document(rng: random.Random, reader: Reader, tokens: int) -> Document:
    """A document that is at most 5 % away from so many tokens."""
    facts = tokens // 14
    while True:
        document = make_document(rng, facts)
        length = len(reader.tokens(document.text))
        if abs(length - tokens) <= tokens * 0.05:
            return document
        facts = max(1, round(facts * tokens / length))


def questions(
    rng: random.Random, reader: Reader, tokens: int, *, missing: bool, tools: bool = False
) -> Iterator[Case]:
    """About documents of that length, at random depth, without end."""
    while True:
        document = sized_document(rng, reader, tokens)
        declared = tuple(t.declaration for t in make_tools(rng, 3)) if tools else ()
        system = {"role": "system", "content": f"{rng.choice(INTRODUCTIONS)}\n\n{document.text}".strip()}
        pool = document.missing if missing else document.facts
        for item in rng.sample(pool, min(PER_DOCUMENT, len(pool))):
            key, value = (item, None) if missing else (item.key, item.value)
            asked = {"role": "user", "content": rng.choice(key.questions)}
            yield Case((system, asked), declared, answer(key, value))


def calls(rng: random.Random, reader: Reader, tokens: int, *, in_words: bool = False) -> Iterator[Case]:
    """Questions that ask for a declared tool, beside a document of that length."""
    while True:
        document = sized_document(rng, reader, tokens) if tokens else None
        tools = make_tools(rng, rng.randrange(1, 6))
        system = {"role": "system", "content": document.text if document else rng.choice(INTRODUCTIONS)}
        for _ in range(PER_DOCUMENT):
            asked = ask_for(rng, rng.choice(tools), in_words=in_words)
            user = {"role": "user", "content": asked.text}
            yield Case((system, user), tuple(t.declaration for t in tools), asked.answer)


def is_valid_call(said: str, tools: tuple[dict[str, Any], ...]) -> bool:
    """It is JSON in its marks, of a declared tool, with all of its parameters and no others."""
    inside = said.removeprefix(CALL_BEGIN).removesuffix(CALL_END)
    if said != CALL_BEGIN + inside + CALL_END:
        return False
    try:
        call = json.loads(inside)
    except ValueError:
        return False
    functions = [tool["function"] for tool in tools]
    parameters = {function["name"]: set(function["parameters"]["required"]) for function in functions}
    match call:
        case {"name": str(name), "arguments": dict(arguments), **rest}:
            return not rest and name in parameters and arguments.keys() == parameters[name]
    return False


@dataclass
class Counts:
    """Of one row."""

    exact: int = 0
    valid: int = 0
    """Calls that can be made, whether or not they are the right ones."""
    asked: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)


def count_right(reader: Reader, cases: Iterator[Case], count: int) -> Counts:
    counts = Counts()
    for case in itertools.islice(cases, count):
        said = reader.answer(case)
        counts.asked += 1
        counts.valid += is_valid_call(said, case.tools)
        if said == case.answer:
            counts.exact += 1
        else:
            question = case.messages[-1]["content"]
            counts.wrong.append({"asked": question, "said": said, "right": case.answer})
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--questions", type=int, default=200, help="in each row")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--wrong", type=Path, help="write the wrong answers there, as JSON")
    options = parser.parse_args()
    reader = Reader(options.model, options.threads)
    rows: dict[str, Callable[[random.Random], Iterator[Case]]] = {}
    for size in (1000, 4000, 8000):
        rows[f"exact answers, {size} tokens"] = lambda rng, n=size: questions(
            rng, reader, n, missing=False
        )
    for size in (1000, 4000, 8000):
        rows[f"not in the document, {size} tokens"] = lambda rng, n=size: questions(
            rng, reader, n, missing=True
        )
    rows["tool calls, no document"] = lambda rng: calls(rng, reader, 0)
    rows["tool calls, 1000 tokens"] = lambda rng: calls(rng, reader, 1000)
    rows["tool calls, arguments in words"] = lambda rng: calls(rng, reader, 0, in_words=True)
    rows["exact answers, 1000 tokens and tools"] = lambda rng: questions(
        rng, reader, 1000, missing=False, tools=True
    )
    wrong: dict[str, list[dict[str, str]]] = {}
    print(f"{options.model}, {options.questions} questions in each row")
    for name, cases in rows.items():
        if options.only and options.only not in name:
            continue
        begun = time.monotonic()
        counts = count_right(reader, cases(random.Random(SEED)), options.questions)
        wrong[name] = counts.wrong
        exact, valid = (f"{100 * n / counts.asked:.1f} %" for n in (counts.exact, counts.valid))
        told = f" {valid} valid |" if name.startswith("tool calls") else ""
        print(f"| {name} | {exact} |{told}  ({time.monotonic() - begun:.0f} s)", flush=True)
    if options.wrong:
        options.wrong.write_text(json.dumps(wrong, indent=1, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()
