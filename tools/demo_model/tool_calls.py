"""Declared tools, questions that ask for one of them, and the calls that answer those questions.

A question names the tool and its arguments: `Call set_room with {"name": "Tarnok", "number": 12}.` or,
in words, `Call set_room with name: "Tarnok", number: 12.`
"""

import json
import random
from dataclasses import dataclass
from typing import Any

import words

VERBS = tuple(
    "get set find list add remove open close start stop check send book read move show".split()
)
OBJECTS = tuple(
    "weather price order invoice ticket room table door valve lamp report message email file user"
    " stock route time level alarm pump light note task event contact".split()
)
PARAMETERS = tuple(
    "name city date code number amount unit colour place room customer product title text level speed"
    " address day hour country category reason id priority language".split()
)
WHOLE_NUMBERS = frozenset({"number", "amount", "level", "speed", "hour", "priority"})
CALL_BEGIN, CALL_END = "<tool_call>\n", "\n</tool_call>"


@dataclass(frozen=True)
class Tool:
    """A function with parameters that are all required."""

    verb: str
    noun: str
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.verb}_{self.noun}"

    @property
    def declaration(self) -> dict[str, Any]:
        """As the OpenAI API declares it."""
        kinds = {p: {"type": "integer" if p in WHOLE_NUMBERS else "string"} for p in self.parameters}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": f"{self.verb.capitalize()} the {self.noun}.",
                "parameters": {"type": "object", "properties": kinds, "required": list(self.parameters)},
            },
        }


@dataclass(frozen=True)
class ToolQuestion:
    """A question that asks for a tool, and the call's arguments."""

    tool: Tool
    text: str
    arguments: dict[str, Any]

    @property
    def call(self) -> dict[str, Any]:
        return {"name": self.tool.name, "arguments": self.arguments}

    @property
    def answer(self) -> str:
        return CALL_BEGIN + json.dumps(self.call, ensure_ascii=False) + CALL_END


def make_tools(rng: random.Random, count: int) -> list[Tool]:
    tools: dict[str, Tool] = {}
    while len(tools) < count:
        parameters = tuple(rng.sample(PARAMETERS, rng.choice((1, 1, 2, 2, 3))))
        tool = Tool(rng.choice(VERBS), rng.choice(OBJECTS), parameters)
        tools[tool.name] = tool
    return list(tools.values())


def _argument(rng: random.Random, parameter: str) -> Any:
    if parameter in WHOLE_NUMBERS:
        return rng.randrange(1, 10 ** rng.randrange(1, 5))
    match rng.randrange(5):
        case 0:
            return rng.choice(words.FIRST_NAMES + words.COLOURS + words.WEEKDAYS + words.NOUNS)
        case 1:
            return words.made_up_code(rng)
        case 2:
            return f"{words.made_up_name(rng)} {rng.choice(words.NOUNS)}"
        case 3:
            return f"20{rng.randrange(20, 30)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        case _:
            return words.made_up_name(rng)


def ask_for(rng: random.Random, tool: Tool, *, in_words: bool) -> ToolQuestion:
    arguments = {parameter: _argument(rng, parameter) for parameter in tool.parameters}
    said = json.dumps(arguments, ensure_ascii=False)
    if in_words:
        said = ", ".join(f"{p}: {json.dumps(v, ensure_ascii=False)}" for p, v in arguments.items())
    text = rng.choice(
        (
            f"Call {tool.name} with {said}.",
            f"Call {tool.name} with {said}",
            f"Please call {tool.name} with {said}.",
            f"Can you call {tool.name} with {said}?",
        )
    )
    return ToolQuestion(tool, text, arguments)
