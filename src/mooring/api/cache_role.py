"""Moonshot's cache message: the first message of a chat may name a cache (docs/moonshot-api.md, 3)."""

from collections.abc import Mapping, Sequence

from mooring.api.messages import ChatMessage
from mooring.core.errors import InvalidRequest
from mooring.service.use import CacheUse

_FORM = "cache_id=<id> or tag=<name>, optionally followed by ;reset_ttl=<seconds> and ;dry_run=1"
_OPTIONS = {"cache_id", "tag", "reset_ttl", "dry_run"}
_HEADER = "X-Msh-Context-Cache"


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
        if key not in _OPTIONS or not equals or not value:
            raise _malformed(f"cannot read {part!r}")
        if key in options:
            raise _malformed(f"{key} is given twice")
        options[key] = value
    if ("cache_id" in options) is ("tag" in options):
        raise _malformed("give one of cache_id and tag")
    dry_run = options.get("dry_run", "0")
    if dry_run not in ("0", "1"):
        raise _malformed(f"dry_run must be 0 or 1, not {dry_run!r}")
    seconds = None
    if (text := options.get("reset_ttl")) is not None:
        if not _is_lifetime(text):
            raise _malformed(f"reset_ttl must be a number of seconds above 0, not {text!r}")
        seconds = int(text)
    return CacheUse(options.get("cache_id"), options.get("tag"), seconds, dry_run == "1")


def read_cache_headers(headers: Mapping[str, str]) -> CacheUse | None:
    """The header form: `X-Msh-Context-Cache: <id>`, with `-DryRun: 1` and `-Reset-TTL: <seconds>`.

    Raises:
        InvalidRequest: an option has no usable value.
    """
    cache_id = headers.get(_HEADER)
    if cache_id is None:
        return None
    text, dry_run = headers.get(f"{_HEADER}-Reset-TTL"), headers.get(f"{_HEADER}-DryRun", "0")
    if text is not None and not _is_lifetime(text):
        raise InvalidRequest(
            f"{_HEADER}-Reset-TTL: must be a number of seconds above 0, not {text!r}",
            param=f"{_HEADER}-Reset-TTL",
        )
    if dry_run not in ("0", "1"):
        raise InvalidRequest(
            f"{_HEADER}-DryRun: must be 0 or 1, not {dry_run!r}", param=f"{_HEADER}-DryRun"
        )
    seconds = None if text is None else int(text)
    return CacheUse(cache_id, None, seconds, dry_run == "1", repeated=True)


def _is_lifetime(text: str) -> bool:
    # isdecimal() alone admits other scripts' digits; no lifetime has more than ten.
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) > 0


def _malformed(problem: str) -> InvalidRequest:
    return InvalidRequest(
        f"messages[0].content: {problem}; a cache message reads {_FORM}",
        param="messages[0].content",
    )
