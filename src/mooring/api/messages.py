"""Chat messages and tools on the wire: checked, and handed on as they were sent."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mooring.core.conversation import Message, Tool


class _Wire(BaseModel):
    """Unknown fields pass: clients send more than any one server knows."""

    model_config = ConfigDict(strict=True, extra="allow")


class TextPart(_Wire):
    """A piece of text content; no other kind of part can be served."""

    type: Literal["text"]
    text: str


class FunctionCall(_Wire):
    name: Annotated[str, Field(min_length=1)]
    arguments: str


class ToolCall(_Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Wire):
    """One message. Role `cache` is taken out by `cache_role` before anything else looks."""

    role: Literal["system", "developer", "user", "assistant", "tool", "cache"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    partial: bool | None = None
    """The beginning of an answer, to be continued: of a last message of role `assistant` only."""

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> "ChatMessage":
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a message of role {self.role!r} needs content")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a message of role 'tool' needs tool_call_id")
        return self

    def as_sent(self) -> Message:
        return self.model_dump(exclude_unset=True)


class FunctionDeclaration(_Wire):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolDeclaration(_Wire):
    type: Literal["function"]
    function: FunctionDeclaration

    def as_sent(self) -> Tool:
        return self.model_dump(exclude_unset=True)
