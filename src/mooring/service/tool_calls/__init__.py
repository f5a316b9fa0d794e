"""Tool calls in a model's own words: read from its answers, and forced on them. Pure.

    engine's text --reader--> content, calls     each family's format has a file with its parser
    tools -------grammar----> what forces a call

Formats are found in the chat template, since what a model reads is what it was taught to write.
"""

from mooring.service.tool_calls.events import ToolCallDelta, read_tool_calls
from mooring.service.tool_calls.format import ToolFormat, find_format, marks_of
from mooring.service.tool_calls.grammar import call_grammar, no_call_grammar
from mooring.service.tool_calls.reader import Reader

__all__ = [
    "Reader",
    "ToolCallDelta",
    "ToolFormat",
    "call_grammar",
    "find_format",
    "marks_of",
    "no_call_grammar",
    "read_tool_calls",
]
