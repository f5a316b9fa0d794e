"""An answer's text as far as it has come, and the steps that every format's parser is made of.

Each step is a generator that yields None while it needs more text. So a parser reads like one over a
whole text, and stops and goes on wherever the stream was cut.
"""

import json
import re
from collections.abc import Callable
from functools import cache

from mooring.service.tool_calls.part import Content, Parsing, Part

_SPACE = " \t\r\n"
_STRING_END = re.compile(r'["\\]')
_SCALAR = re.compile(r"[\w.+-]+")
_MAX_HELD_SPACE = 256


class Source:
    """Text with a place in it. What is taken can be recorded, to be given back."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._recorded: list[str] | None = None
        self.ended = False
        """No more text will come."""

    def add(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    @property
    def rest(self) -> int:
        """How many characters are there to be taken."""
        return len(self._text) - self._at

    def peek(self, length: int = 1, skip: int = 0) -> str:
        start = self._at + skip
        return self._text[start : start + length]

    def find(self, marks: tuple[str, ...]) -> tuple[int, str] | None:
        """The first of these marks from here, and how far away it is."""
        found = _any_of(marks).search(self._text, self._at)
        return None if found is None else (found.start() - self._at, found[0])

    def match(self, pattern: re.Pattern[str], skip: int = 0) -> re.Match[str] | None:
        """The next place a pattern is found at; its positions count from the text's own beginning."""
        return pattern.search(self._text, self._at + skip)

    def offset(self, position: int) -> int:
        """A position of a match, from here."""
        return position - self._at

    def take(self, length: int) -> str:
        taken = self._text[self._at : self._at + length]
        self._at += len(taken)
        if self._recorded is not None:
            self._recorded.append(taken)
        return taken

    def give_back(self, text: str) -> None:
        """The opposite of taking this text."""
        self._text, self._at = text + self._text[self._at :], 0
        if self._recorded is not None:
            self._recorded = ["".join(self._recorded).removesuffix(text)]

    def record(self) -> None:
        """Remember what is taken from here on."""
        self._recorded = []

    def recorded(self) -> str:
        """What was taken since; stops remembering."""
        taken, self._recorded = "".join(self._recorded or ()), None
        return taken


@cache
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))


def skip_space(source: Source) -> Parsing[None]:
    while True:
        while source.rest and source.peek() in _SPACE:
            source.take(1)
        if source.rest or source.ended:
            return
        yield None


def expect(source: Source, *literals: str) -> Parsing[str | None]:
    """Take the one of these that comes next; None, and nothing is taken, if none does."""
    while True:
        ahead = source.peek(max(map(len, literals)))
        for literal in literals:
            if ahead.startswith(literal):
                return source.take(len(literal))
        may_come = any(literal.startswith(ahead) for literal in literals)
        if source.ended or not may_come:
            return None
        yield None


def take_until(source: Source, *marks: str, limit: int) -> Parsing[tuple[str, str | None]]:
    """The text before the first of these marks, and the mark; both are taken.

    Without a mark within `limit` characters, nothing is taken and the mark is None.
    """
    while True:
        found = source.find(marks)
        if found is not None and found[0] <= limit:
            place, mark = found
            return source.take(place), source.take(len(mark))
        if found is not None or source.ended or source.rest > limit + max(map(len, marks)):
            return "", None
        yield None


def content_until(source: Source, marks: tuple[str, ...], *, after_call: bool) -> Parsing[str | None]:
    """Pass text on until one of these marks; None at the end of the answer.

    The mark is taken and returned, with the space in front of it: if a call follows, that belongs to the
    format and not to the text.
    """
    while True:
        if after_call:
            yield from skip_space(source)
        if found := source.find(marks):
            place, mark = found
            space = _space_before(source, source.rest - place)
            if text := source.take(place - space):
                yield Content(text)
            return source.take(space + len(mark))
        if source.ended:
            if source.rest:
                yield Content(source.take(source.rest))
            return None
        held = _begun_mark(source, marks)
        held += _space_before(source, held)
        if text := source.take(source.rest - held):
            after_call = False
            yield Content(text)
        yield None


def json_string(source: Source) -> Parsing[str | None]:
    """A JSON string's value; None when there is no string, or a broken one."""
    if not (yield from expect(source, '"')):
        return None
    raw = ['"']
    while True:
        found = source.match(_STRING_END)
        if found is None:
            raw.append(source.take(source.rest))
        elif found[0] == '"':
            raw.append(source.take(source.offset(found.end())))
            break
        elif source.offset(found.end()) < source.rest:
            raw.append(source.take(source.offset(found.end()) + 1))  # with what is escaped
            continue
        if source.ended:
            return None
        yield None
    try:
        value = json.loads("".join(raw))
    except ValueError:
        return None
    return str(value)


def json_value(source: Source, wrap: Callable[[str], Part] | None = None) -> Parsing[str | None]:
    """A JSON value's own text, which may end early with the answer; None when there is none.

    With `wrap`, a value is passed on piece by piece as it comes, and "" is returned.
    """
    if not source.rest and not source.ended:
        yield None
    if source.peek() not in ("{", "[", '"'):
        return (yield from _scalar(source))
    pieces: list[str] = []
    end = _ValueEnd()
    while not end.found:
        piece = source.take(end.scan(source))
        if piece and wrap is not None:
            yield wrap(piece)
        elif piece:
            pieces.append(piece)
        if not end.found:
            if source.ended:
                break
            yield None
    return "".join(pieces)


def _scalar(source: Source) -> Parsing[str | None]:
    """A number, true, false or null: no longer than any of them is."""
    while True:
        found = _SCALAR.match(source.peek(64))
        if found is None:
            return None
        if found.end() < source.rest or source.ended:
            return source.take(found.end())
        yield None


class _ValueEnd:
    """Looks for the end of a string, list or object in pieces of text."""

    _PLAIN = re.compile(r'["{}\[\]]')

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.found = False

    def scan(self, source: Source) -> int:
        """How much of the text belongs to the value."""
        length = 0
        if self._escaped and source.rest:
            self._escaped, length = False, 1
        while length < source.rest:
            pattern = _STRING_END if self._in_string else self._PLAIN
            hit = source.match(pattern, length)
            if hit is None:
                return source.rest
            length = source.offset(hit.end())
            self._see(hit[0])
            if self.found:
                return length
            if self._escaped and length < source.rest:
                self._escaped, length = False, length + 1
        return length

    def _see(self, character: str) -> None:
        if character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = not self._in_string
        else:
            self._depth += 1 if character in "{[" else -1
        self.found = self._depth == 0 and not self._in_string and not self._escaped


def _begun_mark(source: Source, marks: tuple[str, ...]) -> int:
    """The length of the longest end of the text that may be the beginning of a mark."""
    for length in range(min(max(map(len, marks)) - 1, source.rest), 0, -1):
        end = source.peek(length, source.rest - length)
        if any(mark.startswith(end) for mark in marks):
            return length
    return 0


def _space_before(source: Source, held: int) -> int:
    """How much space stands before the last `held` characters: at most what may be held back."""
    length = min(source.rest - held, _MAX_HELD_SPACE)
    end = source.peek(length, source.rest - held - length)
    return len(end) - len(end.rstrip(_SPACE))
