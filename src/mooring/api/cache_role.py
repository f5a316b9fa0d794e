"""Moonshot's cache message: the first message of a chat may name a cache (docs/moonshot-api.md, 3)."""

from collections.abc import Sequence

from mooring.api.messages import ChatMessage
from mooring.core.errors import InvalidRequest
from mooring.service.contexts import CacheUse

_FORM = "cache_id=<id>, optionally followed by ;reset_ttl=<seconds>"
_LATER = {"tag", "dry_run"}


def split_cache_message(
    messages: Sequence[ChatMessage], *, tools_sent: bool
) -> tuple[CacheUse | None, Sequence[ChatMessage]]:
    """The cache that a chat names, and the messages that follow it.

    Raises:
        InvalidRequest: the cache message is malformed or not the first, or tools stand beside it.
    """
    for index, message in enumerate(messages[1:], start=1):
        if message.role == "cache":
            raise InvalidRequest(
                f"messages[{index}]: only the first message may have the role 'cache'",
                param=f"messages[{index}].role",
            )
    if not messages or messages[0].role != "cache":
        return None, messages
    if tools_sent:
        raise InvalidRequest(
            "tools: a chat with a cache uses the tools of the cache; leave tools out", param="tools"
        )
    return parse_cache_content(messages[0].content), messages[1:]


def parse_cache_content(content: object) -> CacheUse:
    """Read `cache_id=...;reset_ttl=...`; one trailing `;` is accepted.

    Raises:
        InvalidRequest: an option is unknown, repeated, or has no usable value.
    """
    if not isinstance(content, str):
        raise _malformed("must be a string")
    options: dict[str, str] = {}
    for part in content.removesuffix(";").split(";"):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in _LATER:
            raise _malformed(f"{key} is not supported by this version")
        if key not in ("cache_id", "reset_ttl") or not equals or not value:
            raise _malformed(f"cannot read {part!r}")
        if key in options:
            raise _malformed(f"{key} is given twice")
        options[key] = value
    if "cache_id" not in options:
        raise _malformed("cache_id is missing")
    return CacheUse(options["cache_id"], _seconds(options.get("reset_ttl")))


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    # isdecimal() alone admits other scripts' digits; no lifetime has more than ten.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) > 0):
        raise _malformed(f"reset_ttl must be a number of seconds above 0, not {text!r}")
    return int(text)


def _malformed(problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"messages[0].content: {problem}; a cache message reads {_FORM}",
        param="messages[0].content",
    )
