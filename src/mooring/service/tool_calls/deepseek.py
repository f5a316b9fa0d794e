"""A section of calls between marks, in two ways.

V3 and R1 write `function`, a mark, the name, a line end and the arguments in a code fence. V3.1 writes
the name, the mark and the arguments.
"""

from mooring.service.tool_calls.call_object import Calls
from mooring.service.tool_calls.format import (
    DS_CALL,
    DS_CALL_END,
    DS_SECTION,
    DS_SECTION_END,
    DS_SEPARATOR,
)
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
_KIND = "function"
_FENCE = "```"


def read(source: Source, calls: Calls) -> Parsing[None]:
    after_call = False
    marks = (DS_SECTION, DS_SECTION_END, DS_CALL)
    while opening := (yield from content_until(source, marks, after_call=after_call)):
        if not opening.endswith(DS_CALL):
            after_call = True
            continue
        source.record()
        after_call = yield from _call(source, calls)
        taken = source.recorded()
        if after_call:
            yield from skip_space(source)
            yield from expect(source, _FENCE)
            yield from skip_space(source)
            yield from expect(source, DS_CALL_END)
        else:
            yield Content(opening + taken)


def _call(source: Source, calls: Calls) -> Parsing[bool]:
    name, mark = yield from take_until(source, DS_SEPARATOR, limit=_LONGEST_NAME)
    name = name.strip()
    yield from skip_space(source)
    if name == _KIND and source.peek() != "{":
        name, mark = yield from take_until(source, _FENCE, "{", limit=_LONGEST_NAME)
        name = name.strip()
        if mark == _FENCE:
            yield from expect(source, "json")
            yield from skip_space(source)
        elif mark == "{":
            source.give_back(mark)
    if mark is None or not calls.knows(name) or source.peek() != "{":
        return False
    yield calls.begin(name)
    yield from json_value(source, calls.arguments)
    return True
