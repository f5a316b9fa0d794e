"""What a prompt is made of, before any template or tokenizer has seen it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

Message = Mapping[str, Any]
"""One chat message, as the client sent it: `role`, `content`, and whatever else the role takes."""

Tool = Mapping[str, Any]
"""One tool declaration, as the client sent it."""


@dataclass(frozen=True)
class Conversation:
    """Messages and tools, with the date a template may print."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    today: date
    """Frozen for a cache at its creation: a template that prints the date must not miss at midnight."""

    def followed_by(self, messages: tuple[Message, ...]) -> "Conversation":
        return Conversation(self.messages + messages, self.tools, self.today)
