"""What a client holds an answer to: JSON of a schema, a tool call, or nothing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mooring.core.conversation import Tool
from mooring.core.errors import InvalidRequest
from mooring.engine.interface import Grammar, ModelInfo
from mooring.service.json_schema import inline_json
from mooring.service.tool_calls import ToolFormat, call_grammar, no_call_grammar


class ToolChoice(StrEnum):
    """Whether the answer calls tools."""

    NONE = "none"
    AUTO = "auto"
    """The model decides."""
    REQUIRED = "required"


@dataclass(frozen=True)
class AnswerFormat:
    """The client's wishes, independent of any model."""

    schema: Mapping[str, Any] | None = None
    """The JSON schema of an answer that is JSON."""
    tool_choice: ToolChoice = ToolChoice.AUTO
    tool_name: str | None = None
    """The one tool that is required; None: any of them."""
    parallel_calls: bool = True
    """Whether an answer may call more than one tool."""

    @property
    def binding_field(self) -> str | None:
        """The field that says how the whole answer has to look, if one does."""
        if self.tool_choice is ToolChoice.REQUIRED:
            return "tool_choice"
        return None if self.schema is None else "response_format"

    def may_call(self, tools: Sequence[Tool]) -> bool:
        """Whether calls are to be looked for in the answer."""
        return bool(tools) and self.tool_choice is not ToolChoice.NONE

    def grammar(self, tools: Sequence[Tool], format_: ToolFormat, model: ModelInfo) -> Grammar | None:
        """What the engine has to hold the answer to, if anything.

        Raises:
            InvalidRequest: a tool is required that is not there, or whose parameters are no object.
        """
        if self.tool_choice is ToolChoice.REQUIRED:
            chosen, control = self._required(tools), model.control_tokens
            text = call_grammar(format_, chosen, control, parallel=self.parallel_calls)
            return Grammar(text, "tools")
        if self.schema is None:
            if not tools or self.may_call(tools):
                return None
            without = no_call_grammar(format_, model.control_tokens)
            return None if without is None else Grammar(without, "tool_choice")
        if self.may_call(tools):
            text = call_grammar(
                format_,
                tools,
                model.control_tokens,
                parallel=self.parallel_calls,
                or_json=self.schema,
            )
            return Grammar(text, "response_format")
        return json_grammar(self.schema, "response_format")

    def _required(self, tools: Sequence[Tool]) -> Sequence[Tool]:
        names = [tool["function"]["name"] for tool in tools]
        if self.tool_name is None and tools:
            return tools
        if self.tool_name in names:
            return [tool for tool in tools if tool["function"]["name"] == self.tool_name]
        wanted = "a tool" if self.tool_name is None else f"the tool {self.tool_name!r}"
        raise InvalidRequest(
            f"tool_choice: {wanted} is required, but tools declares {', '.join(names) or 'none'}",
            param="tool_choice",
        )


FREE = AnswerFormat()


def json_grammar(schema: Mapping[str, Any], param: str) -> Grammar:
    """JSON of a schema; `param` is the request's field that it stands in."""
    return Grammar(f"start: {inline_json(schema)}", param)
