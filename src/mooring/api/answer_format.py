"""`response_format`, `tool_choice` and `parallel_tool_calls` on the wire."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mooring.service.answer_format import AnswerFormat, ToolChoice
from mooring.service.json_schema import ANY_OBJECT


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True)


class NamedSchema(_Wire):
    """`strict` is not read: every schema is followed to the letter."""

    model_config = ConfigDict(strict=True, populate_by_name=True, serialize_by_alias=True)

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class ResponseFormat(_Wire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type json_schema needs json_schema: {'name', 'schema'}")
        return self

    @property
    def schema_to_follow(self) -> Mapping[str, Any] | None:
        if self.type == "json_object":
            return ANY_OBJECT
        return self.json_schema.schema_ if self.type == "json_schema" and self.json_schema else None


class _FunctionName(_Wire):
    name: str


class NamedTool(_Wire):
    type: Literal["function"]
    function: _FunctionName


ToolChoiceField = Literal["none", "auto", "required"] | NamedTool


def read_answer_format(
    response_format: ResponseFormat | None,
    tool_choice: ToolChoiceField | None,
    *,
    parallel: bool,
) -> AnswerFormat:
    """What the three fields say together."""
    schema = None if response_format is None else response_format.schema_to_follow
    if isinstance(tool_choice, NamedTool):
        return AnswerFormat(schema, ToolChoice.REQUIRED, tool_choice.function.name, parallel)
    return AnswerFormat(schema, ToolChoice(tool_choice or "auto"), None, parallel)
