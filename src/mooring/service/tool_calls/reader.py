"""Reads one answer as it comes: text in, content and calls out."""

from collections.abc import Callable, Collection

from mooring.service.tool_calls import deepseek, hermes, kimi_k2, llama3, mistral
from mooring.service.tool_calls.call_object import Calls
from mooring.service.tool_calls.format import ToolFormat
from mooring.service.tool_calls.part import CallArguments, CallBegun, Content, Parsing, Part
from mooring.service.tool_calls.source import Source, content_until, expect, skip_space

_PARSERS = {
    ToolFormat.HERMES: hermes.read,
    ToolFormat.LLAMA3: llama3.read,
    ToolFormat.MISTRAL: mistral.read,
    ToolFormat.MISTRAL_ARGS: mistral.read,
    ToolFormat.KIMI_K2: kimi_k2.read,
    ToolFormat.DEEPSEEK_V3: deepseek.read,
    ToolFormat.DEEPSEEK_V31: deepseek.read,
}


_THINK, _THINK_END = "<think>", "</think>"

Parser = Callable[[Source, Calls], Parsing[None]]


class Reader:
    """The parts of one answer.

    What is not a well-formed call of a known tool is content, word for word, but for the marks that
    sections of calls have around them. However the answer is cut
    into pieces, its parts say the same. Nothing that a model writes raises.
    """

    def __init__(self, format_: ToolFormat, tools: Collection[str]) -> None:
        self._source = Source()
        self._calls = Calls(frozenset(tools))
        self._parsing = _read(self._source, self._calls, _PARSERS[format_])
        self._over = False

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls.count

    def push(self, text: str) -> list[Part]:
        """The parts that these characters complete. Arguments and content come as they are written."""
        self._source.add(text)
        return self._parts()

    def finish(self) -> list[Part]:
        """The answer is over: what was held in case it became a call is content now."""
        self._source.ended = True
        return self._parts()

    def _parts(self) -> list[Part]:
        parts: list[Part] = []
        while not self._over:
            try:
                part = next(self._parsing)
            except StopIteration:
                self._over = True
                break
            if part is None:
                break
            if parts and type(part) is type(parts[-1]) and not isinstance(part, CallBegun):
                part = _joined(parts.pop(), part)
            parts.append(part)
        return parts


def _read(source: Source, calls: Calls, parser: Parser) -> Parsing[None]:
    """Thoughts first, if the answer begins with them: a call that is only thought of is not made."""
    source.record()
    yield from skip_space(source)
    opening = yield from expect(source, _THINK)
    before = source.recorded()
    if opening is None:
        source.give_back(before)
    else:
        yield Content(before)
        end = yield from content_until(source, (_THINK_END,), after_call=False)
        if end is not None:
            yield Content(end)
    yield from parser(source, calls)


def _joined(first: Part, second: Part) -> Part:
    match first, second:
        case Content(), Content():
            return Content(first.text + second.text)
        case CallArguments(), CallArguments():
            return CallArguments(first.index, first.text + second.text)
    raise AssertionError("only pieces of the same kind are joined")
