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
    "get set find list add remove open close start stop check send book read move show create"
    " delete update search fetch look make build run play pause turn switch lock unlock call ask"
    " order buy sell pay count measure clean repair paint load save print copy cancel confirm lift"
    " lower fill empty test reset schedule plan track report translate convert compute draw write"
    " post share join leave change".split()
)
OBJECTS = tuple(
    "weather price invoice room valve report message email file user stock route time level alarm"
    " light note task event contact page list record customer account payment address image table"
    " row photo word text query result job flight seat reservation appointment reminder forecast"
    " temperature volume status speed document number date item part tool unit value product place"
    " city country person".split()
)
PARAMETERS = tuple(
    "name city date code number amount unit colour place room customer product title text level"
    " speed address day hour country category reason id priority language query path size count"
    " limit user email phone subject message start end status type kind format style weight height"
    " width length price currency street owner target source value key label note state mode month"
    " year quantity".split()
)
WHOLE_NUMBERS = frozenset(
    "number amount level speed hour priority size count limit weight height width length year"
    " quantity".split()
)
CALL_BEGIN, CALL_END = "<tool_call>\n", "\n</tool_call>"
MADE_UP = 0.15
"""Of the words that names are made of, so many are no words."""
AGAIN = 0.05
"""Of the arguments after a first one, so many have the value of another."""


@dataclass(frozen=True)
class Tool:
    """A function with parameters that are all required."""

    words: tuple[str, ...]
    """What its name is made of: ("open", "front", "door")."""
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        return "_".join(self.words)

    @property
    def is_plain(self) -> bool:
        """Its parameters are common words: only then can a question give them in words."""
        return all(parameter in PARAMETERS for parameter in self.parameters)

    @property
    def declaration(self) -> dict[str, Any]:
        """As the OpenAI API declares it."""
        kinds = {p: {"type": "integer" if p in WHOLE_NUMBERS else "string"} for p in self.parameters}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": " ".join(self.words).capitalize() + ".",
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


def make_tools(rng: random.Random, count: int, made_up: float = MADE_UP) -> list[Tool]:
    """So many tools of different names; of the words in their names, a share is made up."""

    def word(pool: tuple[str, ...]) -> str:
        return words.made_up_name(rng).lower() if rng.random() < made_up else rng.choice(pool)

    tools: dict[str, Tool] = {}
    while len(tools) < count:
        parameters = {word(PARAMETERS): None for _ in range(rng.choice((1, 1, 2, 2, 3)))}
        parts = [word(VERBS), word(rng.choice((OBJECTS, words.NOUNS)))]
        if rng.random() < 0.1:
            parts.insert(1, word(words.ADJECTIVES))
        elif rng.random() < 0.1:
            parts.pop()
        tool = Tool(tuple(parts), tuple(parameters))
        tools[tool.name] = tool
    return list(tools.values())


def _argument(rng: random.Random, parameter: str) -> Any:
    if parameter in WHOLE_NUMBERS:
        return rng.randrange(1, 10 ** rng.randrange(1, 5))
    match rng.randrange(6):
        case 0:
            return rng.choice(words.FIRST_NAMES + words.COLOURS + words.WEEKDAYS + words.NOUNS)
        case 1:
            return words.made_up_code(rng)
        case 2:
            return f"{words.made_up_name(rng)} {rng.choice(words.NOUNS)}"
        case 3:
            return f"20{rng.randrange(20, 30)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
        case 4:
            return " ".join(rng.sample(words.ADJECTIVES + words.NOUNS, rng.randrange(1, 4)))
        case _:
            return words.made_up_name(rng)


def _arguments(rng: random.Random, tool: Tool) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for parameter in tool.parameters:
        alike = [v for v in arguments.values() if isinstance(v, int) == (parameter in WHOLE_NUMBERS)]
        again = alike and rng.random() < AGAIN
        arguments[parameter] = rng.choice(alike) if again else _argument(rng, parameter)
    return arguments


def ask_for(rng: random.Random, tool: Tool, *, in_words: bool) -> ToolQuestion:
    arguments = _arguments(rng, tool)
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
