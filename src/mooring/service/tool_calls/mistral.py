"""`[TOOL_CALLS]`, and then a list of call objects, or `name[ARGS]{...}` for each call.

Between name and arguments there may be `[CALL_ID]` and the model's own id, which is dropped.
"""

from mooring.service.tool_calls.call_object import Calls, call_object
from mooring.service.tool_calls.format import ARGS, CALL_ID, TOOL_CALLS
from mooring.service.tool_calls.part import Content, Parsing
from mooring.service.tool_calls.source import (
    Source,
    content_until,
    expect,
    json_value,
    skip_space,
    take_until,
)

_LONGEST_NAME = 256


def read(source: Source, calls: Calls) -> Parsing[None]:
    after_call = False
    while opening := (yield from content_until(source, (TOOL_CALLS,), after_call=after_call)):
        source.record()
        yield from skip_space(source)
        if (yield from expect(source, "[")):
            after_call = yield from _list(source, calls)
        else:
            after_call = yield from _named(source, calls)
        taken = source.recorded()
        if not after_call:
            yield Content(opening + taken)


def _list(source: Source, calls: Calls) -> Parsing[bool]:
    any_call = False
    while True:
        yield from skip_space(source)
        if any_call:
            source.record()
        if not (yield from call_object(source, calls)):
            if any_call and (rest := source.recorded()):
                yield Content(rest)
            return any_call
        any_call = True
        yield from skip_space(source)
        if (yield from expect(source, ",", "]")) != ",":
            return True


def _named(source: Source, calls: Calls) -> Parsing[bool]:
    name, mark = yield from take_until(source, ARGS, CALL_ID, "{", limit=_LONGEST_NAME)
    if mark == CALL_ID:
        _, mark = yield from take_until(source, ARGS, "{", limit=_LONGEST_NAME)
    if mark == "{":
        source.give_back(mark)
    name = name.strip()
    yield from skip_space(source)
    if mark is None or not calls.knows(name) or source.peek() != "{":
        return False
    yield calls.begin(name)
    yield from json_value(source, calls.arguments)
    return True
