"""`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as often as there are calls."""

from mooring.service.tool_calls.call_object import Calls, call_object
from mooring.service.tool_calls.format import TOOL_CALL, TOOL_CALL_END
from mooring.service.tool_calls.part import Content, Parsing
from mooring.service.tool_calls.source import Source, content_until, expect, skip_space


def read(source: Source, calls: Calls) -> Parsing[None]:
    after_call = False
    while opening := (yield from content_until(source, (TOOL_CALL,), after_call=after_call)):
        source.record()
        yield from skip_space(source)
        after_call = yield from call_object(source, calls)
        taken = source.recorded()
        if after_call:
            yield from skip_space(source)
            yield from expect(source, TOOL_CALL_END)
        else:
            yield Content(opening + taken)
