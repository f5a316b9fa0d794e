"""Grammars that force calls, in the model's own format, or rule them out (llguidance's Lark)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mooring.core.conversation import Tool
from mooring.core.errors import InvalidRequest
from mooring.service.json_schema import ANY_OBJECT, inline_json
from mooring.service.tool_calls import format as marks
from mooring.service.tool_calls.format import ToolFormat

_Writer = Callable[["_Writing", str, str], str]


@dataclass(frozen=True)
class _Writing:
    """How texts and marks are put into rules for one vocabulary."""

    control_tokens: Mapping[str, int]

    def mark(self, text: str) -> str:
        """A control token where the vocabulary has it, else its letters."""
        token = self.control_tokens.get(text)
        return self.text(text) if token is None else f"<[{token}]>"

    @staticmethod
    def text(text: str) -> str:
        return _quoted(text)


def _quoted(text: str) -> str:
    """As JSON writes strings, and Lark too."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class _Form:
    """A format's rule: a call, and what stands around and between calls."""

    call: _Writer
    before: str | None = None
    """A mark."""
    first: str = ""
    between: str = ""
    last: str = ""
    after: str | None = None
    """A mark."""


def _hermes(w: _Writing, name: str, arguments: str) -> str:
    head, end = w.text(f'\n{{"name": {_quoted(name)}, "arguments": '), w.text("}\n")
    return f"{w.mark(marks.TOOL_CALL)} {head} {arguments} {end} {w.mark(marks.TOOL_CALL_END)}"


def _llama3(w: _Writing, name: str, arguments: str) -> str:
    head, end = w.text(f'{{"name": {_quoted(name)}, "parameters": '), w.text("}")
    return f"{head} {arguments} {end}"


def _mistral(w: _Writing, name: str, arguments: str) -> str:
    head, end = w.text(f'{{"name": {_quoted(name)}, "arguments": '), w.text("}")
    return f"{head} {arguments} {end}"


def _mistral_args(w: _Writing, name: str, arguments: str) -> str:
    return f"{w.mark(marks.TOOL_CALLS)} {w.text(name)} {w.mark(marks.ARGS)} {arguments}"


def _kimi_k2(w: _Writing, name: str, arguments: str) -> str:
    title = w.text(f"functions.{name}:") + " /[0-9]{1,3}/"
    opening, closing = w.mark(marks.K2_CALL), w.mark(marks.K2_CALL_END)
    return f"{opening} {title} {w.mark(marks.K2_ARGUMENTS)} {arguments} {closing}"


def _deepseek_v3(w: _Writing, name: str, arguments: str) -> str:
    opening, separator, closing = map(w.mark, (marks.DS_CALL, marks.DS_SEPARATOR, marks.DS_CALL_END))
    head, fence = w.text(f"{name}\n```json\n"), w.text("\n```")
    return f"{opening} {w.text('function')} {separator} {head} {arguments} {fence} {closing}"


def _deepseek_v31(w: _Writing, name: str, arguments: str) -> str:
    opening, separator, closing = map(w.mark, (marks.DS_CALL, marks.DS_SEPARATOR, marks.DS_CALL_END))
    return f"{opening} {w.text(name)} {separator} {arguments} {closing}"


_FORMS = {
    ToolFormat.HERMES: _Form(_hermes, between="\n"),
    ToolFormat.LLAMA3: _Form(_llama3, between="; "),
    ToolFormat.MISTRAL: _Form(_mistral, marks.TOOL_CALLS, first="[", between=", ", last="]"),
    ToolFormat.MISTRAL_ARGS: _Form(_mistral_args),
    ToolFormat.KIMI_K2: _Form(_kimi_k2, marks.K2_SECTION, after=marks.K2_SECTION_END),
    ToolFormat.DEEPSEEK_V3: _Form(
        _deepseek_v3, marks.DS_SECTION, between="\n", after=marks.DS_SECTION_END
    ),
    ToolFormat.DEEPSEEK_V31: _Form(_deepseek_v31, marks.DS_SECTION, after=marks.DS_SECTION_END),
}
_OPENING = {
    ToolFormat.HERMES: marks.TOOL_CALL,
    ToolFormat.MISTRAL: marks.TOOL_CALLS,
    ToolFormat.MISTRAL_ARGS: marks.TOOL_CALLS,
    ToolFormat.KIMI_K2: marks.K2_CALL,
    ToolFormat.DEEPSEEK_V3: marks.DS_CALL,
    ToolFormat.DEEPSEEK_V31: marks.DS_CALL,
}


def call_grammar(
    format_: ToolFormat,
    tools: Sequence[Tool],
    control_tokens: Mapping[str, int],
    *,
    parallel: bool,
    or_json: Mapping[str, Any] | None = None,
) -> str:
    """An answer that is a call of one of these tools, or with `parallel` one or more.

    Arguments follow the tool's schema; without one, they are any object. With `or_json`, JSON of that
    schema is the other possible answer.

    Raises:
        InvalidRequest: a tool's parameters are not an object.
    """
    form, writing = _FORMS[format_], _Writing(control_tokens)
    rules, calls = [], []
    for index, tool in enumerate(tools):
        rules.append(f"arguments_{index}: {inline_json(_parameters(tool))}")
        rules.append(
            f"call_{index}: {form.call(writing, tool['function']['name'], f'arguments_{index}')}"
        )
        calls.append(f"call_{index}")
    between = writing.text(form.between) if form.between else ""
    parts = [
        "" if form.before is None else writing.mark(form.before),
        writing.text(form.first) if form.first else "",
        f"call ({between} call)*" if parallel else "call",
        writing.text(form.last) if form.last else "",
        "" if form.after is None else writing.mark(form.after),
    ]
    rules.append(f"call: {' | '.join(calls)}")
    rules.append(f"calls: {' '.join(filter(None, parts))}")
    if or_json is None:
        return "\n".join(["start: calls", *rules])
    return "\n".join(["start: calls | answer", f"answer: {inline_json(or_json)}", *rules])


def no_call_grammar(format_: ToolFormat, control_tokens: Mapping[str, int]) -> str | None:
    """Any answer that does not begin a call; None when the format has no mark to rule out."""
    opening = _OPENING.get(format_)
    if opening is None:
        return None
    if opening in control_tokens:
        return f"start: <[^{control_tokens[opening]}]>*"
    return f"start: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*){re.escape(opening)}(?s:.*)/"


def _parameters(tool: Tool) -> Mapping[str, Any]:
    function = tool["function"]
    parameters = function.get("parameters") or ANY_OBJECT
    kind = parameters.get("type", "object")
    if kind != "object":
        raise InvalidRequest(
            f"tools: the parameters of {function['name']!r} must be of type 'object', not {kind!r}",
            param="tools",
        )
    return {"type": "object", **parameters}
