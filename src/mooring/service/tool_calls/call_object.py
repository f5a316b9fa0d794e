"""A call as one JSON object: `{"name": ..., "arguments": {...}}`, in either order."""

import json
from dataclasses import dataclass

from mooring.service.tool_calls.part import CallArguments, CallBegun, Parsing
from mooring.service.tool_calls.source import Source, expect, json_string, json_value, skip_space

_NAME_KEYS = ("name",)
_ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass
class Calls:
    """Which tools there are, and how many calls have been read."""

    tools: frozenset[str]
    """Empty when it is not known; then every name is taken."""
    count: int = 0

    def knows(self, name: str | None) -> bool:
        return bool(name) and (not self.tools or name in self.tools)

    def begin(self, name: str) -> CallBegun:
        self.count += 1
        return CallBegun(self.count - 1, name)

    def arguments(self, text: str) -> CallArguments:
        """A piece for the call that was begun last."""
        return CallArguments(self.count - 1, text)


def call_object(source: Source, calls: Calls) -> Parsing[bool]:
    """Read one; False when it is not a call after all, as long as no part of one was passed on."""
    name: str | None = None
    held: str | None = None  # arguments that came before the name
    begun = False
    if not (yield from expect(source, "{")):
        return False
    while True:
        yield from skip_space(source)
        key = yield from json_string(source)
        yield from skip_space(source)
        if key is None or not (yield from expect(source, ":")):
            return begun
        yield from skip_space(source)
        if key in _NAME_KEYS and not begun:
            name = yield from json_string(source)
            if name is None or not calls.knows(name):
                return False
            if held is not None:
                begun = True
                yield calls.begin(name)
                yield calls.arguments(held)
        elif key in _ARGUMENT_KEYS and name is not None and not begun and source.peek() == "{":
            begun = True
            yield calls.begin(name)
            yield from json_value(source, calls.arguments)
        else:
            value = yield from json_value(source)
            if value is None:
                return begun
            if key in _ARGUMENT_KEYS and not begun:
                held = _as_object(value)
                if held is None:
                    return False
                if name is not None:
                    begun = True
                    yield calls.begin(name)
                    yield calls.arguments(held)
        yield from skip_space(source)
        match (yield from expect(source, ",", "}")):
            case ",":
                continue
            case "}" if name is not None and not begun:  # nothing to pass to it
                yield calls.begin(name)
                yield calls.arguments("{}")
                return True
            case _:
                return begun


def _as_object(value: str) -> str | None:
    """Arguments as the text of an object; some models write them as a string, or as null."""
    if value.startswith("{"):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return None
    if parsed is None:
        return "{}"
    return parsed if isinstance(parsed, str) and parsed.lstrip().startswith("{") else None
