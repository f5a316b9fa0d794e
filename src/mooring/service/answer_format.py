"""What a client holds an answer to: JSON of a schema, a tool call, or nothing. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from llguidance import LLMatcher

from mooring.core.errors import InvalidRequest
from mooring.engine.interface import Grammar

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of `response_format: {"type": "json_object"}`."""

# Between JSON's tokens; without an end to it, a model can go on with spaces until its tokens are over.
_WHITESPACE = "[ \\n]{0,16}"


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

    def grammar(self) -> Grammar | None:
        """What the engine has to hold the answer to. Raises InvalidRequest."""
        return None if self.schema is None else json_grammar(self.schema, "response_format")


FREE = AnswerFormat()


def json_grammar(schema: Mapping[str, Any], param: str) -> Grammar:
    """The grammar of JSON that a schema describes; `param` is the request's field that it stands in.

    The engine finds out whether the schema can be followed.

    Raises:
        InvalidRequest: it is no JSON object at all.
    """
    try:
        text = LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_pattern": _WHITESPACE}
        )
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{param}: not a JSON schema: {error}", param=param) from error
    return Grammar(text, param)
