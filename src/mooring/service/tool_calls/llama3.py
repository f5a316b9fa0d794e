"""`{"name": ..., "parameters": {...}}`, more of them after `;`, with `<|python_tag|>` in front or not.

Nothing marks the call of a model that writes no tag: an answer that begins with `{` may be one, and is
held until it is seen whether it names a tool.
"""

from mooring.service.tool_calls.call_object import Calls, call_object
from mooring.service.tool_calls.format import PYTHON_TAG
from mooring.service.tool_calls.part import Content, Parsing
from mooring.service.tool_calls.source import Source, content_until, expect, skip_space


def read(source: Source, calls: Calls) -> Parsing[None]:
    source.record()
    yield from skip_space(source)
    after_call = False
    if source.peek() == "{":
        after_call = yield from _calls(source, calls, source.recorded())
    elif space := source.recorded():
        source.give_back(space)
    while tag := (yield from content_until(source, (PYTHON_TAG,), after_call=after_call)):
        after_call = yield from _calls(source, calls, tag)


def _calls(source: Source, calls: Calls, before: str) -> Parsing[bool]:
    """All that follow one another; `before` is what was taken and is content if no call follows."""
    any_call = False
    while True:
        source.record()
        yield from skip_space(source)
        is_call = yield from call_object(source, calls)
        taken = before + source.recorded()
        if not is_call:
            if taken:
                yield Content(taken)
            return any_call
        any_call = True
        yield from skip_space(source)
        before = (yield from expect(source, ";", PYTHON_TAG)) or ""
        if not before and source.peek() != "{":
            return True
