"""A section of calls; each is `functions.<name>:<n>` and its arguments, between marks."""

from mooring.service.tool_calls.call_object import Calls
from mooring.service.tool_calls.format import (
    K2_ARGUMENTS,
    K2_CALL,
    K2_CALL_END,
    K2_SECTION,
    K2_SECTION_END,
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


def read(source: Source, calls: Calls) -> Parsing[None]:
    after_call = False
    # The section's own marks say nothing that the calls' marks do not.
    marks = (K2_SECTION, K2_SECTION_END, K2_CALL)
    while opening := (yield from content_until(source, marks, after_call=after_call)):
        if not opening.endswith(K2_CALL):
            after_call = True
            continue
        source.record()
        after_call = yield from _call(source, calls)
        taken = source.recorded()
        if after_call:
            yield from skip_space(source)
            yield from expect(source, K2_CALL_END)
        else:
            yield Content(opening + taken)


def _call(source: Source, calls: Calls) -> Parsing[bool]:
    title, mark = yield from take_until(source, K2_ARGUMENTS, limit=_LONGEST_NAME)
    name = title.strip().removeprefix("functions.")
    if not calls.knows(name):  # a tool's own name may have a colon in it
        name = name.rpartition(":")[0]
    yield from skip_space(source)
    if mark is None or not calls.knows(name) or source.peek() != "{":
        return False
    yield calls.begin(name)
    yield from json_value(source, calls.arguments)
    return True
