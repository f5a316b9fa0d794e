"""Keeps what clients write from becoming control tokens.

A user's message, a tool's result or a cached document may contain `<|im_end|>` and what looks like a
system turn behind it. The template's own control tokens must be recognised, those in content must not.
So content is rendered with marks in their place, and the rendered text is taken apart at the marks.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from mooring.core.conversation import Conversation
from mooring.engine.template import shape_message

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"  # private-use characters; they are marked themselves
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


class ControlGuard:
    """Knows the texts of one vocabulary's control tokens."""

    def __init__(self, control_texts: list[str]) -> None:
        # Longest first: one text can begin another.
        self._texts = sorted({*filter(None, control_texts), _OPEN, _CLOSE}, key=len, reverse=True)
        self._numbers = {text: number for number, text in enumerate(self._texts)}
        self._pattern = re.compile("|".join(map(re.escape, self._texts)))

    def hide(self, conversation: Conversation) -> Conversation:
        """The conversation with a mark for every control text in its messages and tools."""
        return Conversation(
            # Shaped first: parts that are joined, or escapes that are read, can make such a text.
            tuple(_map_strings(shape_message(each), self._mark) for each in conversation.messages),
            tuple(_map_strings(tool, self._mark) for tool in conversation.tools),
            conversation.today,
        )

    def reveal(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """Pieces of the rendered text, and whether control tokens count in each."""
        end = 0
        for mark in _MARK.finditer(rendered):
            if mark.start() > end:
                yield rendered[end : mark.start()], True
            yield self._texts[int(mark[1])], False
            end = mark.end()
        if end < len(rendered):
            yield rendered[end:], True

    def _mark(self, text: str) -> str:
        return self._pattern.sub(lambda hit: f"{_OPEN}{self._numbers[hit[0]]}{_CLOSE}", text)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    return value
