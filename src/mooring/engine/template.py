"""The model's own chat template: messages and tools to prompt text. Knows nothing of tokens."""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mooring.core.conversation import Conversation, Message
from mooring.core.errors import InvalidRequest, ModelUnreadable

_SHORT_ID = "length != 9"  # in the templates that refuse any other id of a call
_SHORT_ID_LENGTH = 9
# Any escape, so that a backslash that is escaped itself begins none; U+E000 to U+F8FF in the group.
_ESCAPE = re.compile(r"\\(?:u(e[0-9a-f]{3}|f[0-8][0-9a-f]{2})|.)")


class ChatTemplate:
    """A Jinja2 chat template, run in a sandbox: it came with the weights, from anybody."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile `source`; `bos` and `eos` are the special tokens' texts ("" when there is none).

        Raises:
            ModelUnreadable: the source is not a Jinja2 template.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelUnreadable(f"the model's chat template is broken: {error}") from error
        self._special = {"bos_token": bos, "eos_token": eos}
        self._short_ids = _SHORT_ID in source

    def render(self, conversation: Conversation, *, for_answer: bool) -> str:
        """Prompt text; `for_answer` ends it where the assistant's turn begins.

        Raises:
            InvalidRequest: the template refuses the messages, or fails on them.
        """
        try:
            return self._template.render(
                messages=[self._shape(message) for message in conversation.messages],
                tools=[dict(tool) for tool in conversation.tools] or None,
                add_generation_prompt=for_answer,
                strftime_now=_frozen_strftime(conversation.today),
                **self._special,
            )
        except Exception as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def _shape(self, message: Message) -> dict[str, Any]:
        shaped = shape_message(message)
        return _with_short_ids(shaped) if self._short_ids else shaped


def shape_message(message: Message) -> dict[str, Any]:
    """A message as templates expect it: text content as one string, call arguments as an object.

    Shaping what is shaped already changes nothing.
    """
    shaped = dict(message)
    shaped["content"] = _text(message.get("content"))
    if message.get("tool_calls"):
        shaped["tool_calls"] = [_call_for_template(call) for call in message["tool_calls"]]
    return shaped


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Ids of calls as Mistral's templates insist on them: nine letters and digits, equal for equals."""
    if message.get("tool_call_id"):
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    if message.get("tool_calls"):
        message["tool_calls"] = [call | {"id": _short_id(call["id"])} for call in message["tool_calls"]]
    return message


def _short_id(call_id: str) -> str:
    if len(call_id) == _SHORT_ID_LENGTH and call_id.isalnum():
        return call_id
    return hashlib.blake2b(call_id.encode(errors="replace")).hexdigest()[:_SHORT_ID_LENGTH]


def _text(content: object) -> str:
    """OpenAI allows null, a string, or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    assert isinstance(content, list), "the API layer admits nothing else"
    return "".join(part["text"] for part in content)


def _call_for_template(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    # A model may have written broken JSON; that goes back as the text it was.
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        arguments = json.loads(function["arguments"])
        if isinstance(arguments, dict):
            function["arguments"] = arguments
    return {**call, "function": function}


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face's templates expect it: escapes nothing for HTML, keeps other scripts readable.

    Private-use characters are never escaped: `control_guard` looks for its marks in what is rendered.
    """
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _ESCAPE.sub(_show_private_use, text) if ensure_ascii else text


def _show_private_use(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else escape[0]


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _frozen_strftime(today: date) -> Any:
    midnight = datetime.combine(today, time())
    return midnight.strftime
