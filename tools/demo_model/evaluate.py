"""Asks the exported model about unseen documents and counts exact answers, greedy, through llama.cpp.

`python tools/demo_model/evaluate.py` prints the table of the model card. Needs
`pip install -e '.[models]'` and nothing of the training.
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
from tool_calls import CALL_BEGIN, CALL_END, MADE_UP, ask_for, make_tools

from mooring.core.conversation import Conversation
from mooring.engine.template import ChatTemplate
from mooring.testing import bundled_model

SEED = 7_000_003
"""Training draws its documents from other seeds."""
PER_DOCUMENT = 5
"""Questions."""
ANSWER_TOKENS = 80


@dataclass(frozen=True)
class Case:
    """A conversation whose last message is a question, and the one right answer."""

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
        return self._llama.detokenize(said, special=True).decode(errors="replace")


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
    rng: random.Random,
    reader: Reader,
    tokens: int,
    *,
    missing: bool = False,
    tools: int = 0,
    earlier: int = 0,
) -> Iterator[Case]:
    """About documents of that length, at random depth, without end.

    So many tools are declared, and so many questions have been answered before.
    """
    while True:
        document = sized_document(rng, reader, tokens)
        declared = tuple(tool.declaration for tool in make_tools(rng, tools))
        system = _message("system", f"{rng.choice(INTRODUCTIONS)}\n\n{document.text}".strip())
        pool = document.missing if missing else document.facts
        for item in rng.sample(pool, min(PER_DOCUMENT, len(pool))):
            key, value = (item, None) if missing else (item.key, item.value)
            messages = [system]
            for fact in rng.sample([fact for fact in document.facts if fact is not item], earlier):
                messages += [
                    _message("user", rng.choice(fact.key.questions)),
                    _message("assistant", answer(fact.key, fact.value)),
                ]
            messages.append(_message("user", rng.choice(key.questions)))
            yield Case(tuple(messages), declared, answer(key, value))


def calls(
    rng: random.Random,
    reader: Reader,
    tokens: int,
    *,
    in_words: bool = False,
    made_up: float = MADE_UP,
) -> Iterator[Case]:
    """Questions that ask for a declared tool, beside a document of that length."""
    while True:
        document = sized_document(rng, reader, tokens) if tokens else None
        tools = make_tools(rng, rng.randrange(1, 6), made_up)
        askable = [tool for tool in tools if tool.is_plain or not in_words]
        if not askable:
            continue
        declared = tuple(tool.declaration for tool in tools)
        system = _message("system", document.text if document else rng.choice(INTRODUCTIONS))
        for _ in range(PER_DOCUMENT):
            asked = ask_for(rng, rng.choice(askable), in_words=in_words)
            yield Case((system, _message("user", asked.text)), declared, asked.answer)


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def is_valid_call(said: str, tools: tuple[dict[str, Any], ...]) -> bool:
    """It is JSON in its marks, of a declared tool, with its parameters; all of them, of their types."""
    inside = said.removeprefix(CALL_BEGIN).removesuffix(CALL_END)
    if said != CALL_BEGIN + inside + CALL_END:
        return False
    try:
        call = json.loads(inside)
    except ValueError:
        return False
    functions = [tool["function"] for tool in tools]
    properties = {function["name"]: function["parameters"]["properties"] for function in functions}
    match call:
        case {"name": str(name), "arguments": dict(arguments), **rest}:
            given = {parameter: {"type": _type(value)} for parameter, value in arguments.items()}
            return not rest and given == properties.get(name)
    return False


def _type(value: Any) -> str | None:
    """The declarations' word for it."""
    return {str: "string", int: "integer"}.get(type(value))


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


Row = Callable[[random.Random], Iterator[Case]]


def rows(reader: Reader) -> dict[str, Row]:
    """The table's rows by their names."""

    def answers(tokens: int, **more: Any) -> Row:
        return lambda rng: questions(rng, reader, tokens, **more)

    def called(tokens: int = 0, **more: Any) -> Row:
        return lambda rng: calls(rng, reader, tokens, **more)

    lengths = (1000, 4000, 8000)
    found = {f"exact answers, {tokens:,} tokens": answers(tokens) for tokens in (*lengths, 15_000)}
    missing = {
        f'"not in the document", {tokens:,} tokens': answers(tokens, missing=True) for tokens in lengths
    }
    return (
        found
        | {
            "exact answers, 1,000 tokens, the third question": answers(1000, earlier=2),
            "exact answers, 1,000 tokens, three tools declared": answers(1000, tools=3),
        }
        | missing
        | {
            "tool calls, arguments as JSON": called(),
            "tool calls, arguments as JSON, beside 1,000 tokens": called(1000),
            "tool calls, arguments as JSON, all names made up": called(made_up=1.0),
            "tool calls, arguments in words": called(in_words=True),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--questions", type=int, default=200, help="in each row")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--wrong", type=Path, help="write the wrong answers there, as JSON")
    options = parser.parse_args()
    reader = Reader(options.model, options.threads)
    wanted = {name: row for name, row in rows(reader).items() if options.only in name}
    if not wanted:
        names = "\n  ".join(rows(reader))
        parser.error(f"--only: no row has {options.only!r} in its name; there are\n  {names}")
    wrong: dict[str, list[dict[str, str]]] = {}
    print("| | right | valid calls | of | seconds |\n|---|---:|---:|---:|---:|", flush=True)
    for name, row in wanted.items():
        begun = time.monotonic()
        counts = count_right(reader, row(random.Random(SEED)), options.questions)
        wrong[name] = counts.wrong
        right, valid = (f"{100 * n / counts.asked:.1f} %" for n in (counts.exact, counts.valid))
        valid = valid if "call" in name else ""
        seconds = time.monotonic() - begun
        print(f"| {name} | {right} | {valid} | {counts.asked} | {seconds:.0f} |", flush=True)
    if options.wrong:
        options.wrong.write_text(json.dumps(wrong, indent=1, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()
