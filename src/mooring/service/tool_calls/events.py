"""An engine's events with the tool calls read out of their text."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from mooring.engine.interface import ChoiceFinished, Delta, Event, FinishReason
from mooring.service.tool_calls.part import CallArguments, CallBegun, Content, Part
from mooring.service.tool_calls.reader import Reader


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call: its id and name once, its arguments as they come."""

    choice: int
    index: int
    """Which call of the choice, from 0."""
    id: str | None
    name: str | None
    arguments: str


async def read_tool_calls(
    events: AsyncGenerator[Event], new_reader: Callable[[], Reader]
) -> AsyncGenerator[Event | ToolCallDelta]:
    """The same events; what the text says in tool calls comes as `ToolCallDelta`."""
    readers: dict[int, Reader] = {}
    try:
        async for event in events:
            match event:
                case Delta(choice, text):
                    reader = readers.setdefault(choice, new_reader())
                    for each in _events(event, reader.push(text)):
                        yield each
                case ChoiceFinished(choice, reason):
                    reader = readers.setdefault(choice, new_reader())
                    for each in _events(Delta(choice, ""), reader.finish()):
                        yield each
                    called = reader.calls > 0 and reason is FinishReason.STOP
                    yield replace(event, reason=FinishReason.TOOL_CALLS) if called else event
                case _:
                    yield event
    finally:
        await events.aclose()


def _events(delta: Delta, parts: list[Part]) -> list[Delta | ToolCallDelta]:
    """One delta's parts in their order. Its log probabilities stay, whatever becomes of its text."""
    found: list[Delta | ToolCallDelta] = []
    for part in parts:
        match part:
            case Content(text):
                found.append(Delta(delta.choice, text))
            case CallBegun(index, name):
                found.append(ToolCallDelta(delta.choice, index, part.id, name, ""))
            case CallArguments(index, text):
                found.append(ToolCallDelta(delta.choice, index, None, None, text))
    if delta.logprobs:
        if not found or not isinstance(found[0], Delta):
            found.insert(0, Delta(delta.choice, ""))
        found[0] = replace(found[0], logprobs=delta.logprobs)  # type: ignore[arg-type]
    return found
