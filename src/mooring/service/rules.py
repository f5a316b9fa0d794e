"""What messages must be beyond their shape (docs/moonshot-api.md, sections 2 and 3). Pure."""

from collections.abc import Sequence

from mooring.core.conversation import Message, Tool
from mooring.core.errors import InvalidRequest


def is_continued(messages: Sequence[Message]) -> bool:
    """Whether the answer is to go on where the last message stops."""
    return bool(messages and messages[-1].get("partial"))


def check_partial(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest: a message is partial that cannot be continued."""
    for index, message in enumerate(messages):
        if message.get("partial"):
            if index < len(messages) - 1:
                raise _wrong(index, "partial", "only the last message can be continued")
            if message["role"] != "assistant" or message.get("tool_calls"):
                raise _wrong(index, "partial", "only an assistant's text can be continued")


def check_messages(messages: Sequence[Message], tools: Sequence[Tool]) -> None:
    """Calls and their results must belong together, and be of declared tools.

    Raises:
        InvalidRequest: naming the message, and what is missing.
    """
    if not messages:
        raise InvalidRequest("messages: at least one message is needed", param="messages")
    declared = {tool["function"]["name"] for tool in tools}
    open_calls: dict[str, int] = {}  # call id -> index of the message that made it
    for index, message in enumerate(messages):
        if message.get("partial"):
            raise _wrong(index, "partial", "a cache holds whole messages only")
        if message["role"] == "tool":
            if open_calls.pop(message["tool_call_id"], None) is None:
                raise _wrong(index, "tool_call_id", "answers no tool call of an earlier message")
            continue
        _check_answered(open_calls)
        for call in message.get("tool_calls") or ():
            name = call["function"]["name"]
            if name not in declared:
                raise _wrong(index, "tool_calls", f"the tool {name!r} is not declared in tools")
            open_calls[call["id"]] = index
    _check_answered(open_calls)


def _check_answered(open_calls: dict[str, int]) -> None:
    for call_id, index in open_calls.items():
        raise _wrong(index, "tool_calls", f"the call {call_id!r} is not answered by a tool message")


def _wrong(index: int, field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"messages[{index}].{field}: {problem}", param=f"messages[{index}].{field}")
