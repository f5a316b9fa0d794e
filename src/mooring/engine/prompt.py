"""Conversations to tokens: the whole prompt, and the part of it that every continuation shares.

Only token equality is reuse, so a prompt is always tokenised whole: text cut anywhere else can merge
into other tokens (docs/pitfalls.md, 2).
"""

from typing import Protocol

from mooring.core.conversation import Conversation
from mooring.core.prefix import Tokens, common_length
from mooring.engine.template import ChatTemplate

# Two follow-ups that differ from their first character. What both prompts share belongs to the
# conversation; what they do not, the template moved or the tokenizer merged across the cut.
_PROBES = ({"role": "user", "content": "0 a"}, {"role": "user", "content": "Why"})


class Tokenizer(Protocol):
    """Text to token ids."""

    @property
    def adds_bos(self) -> bool:
        """The vocabulary asks for a BOS token in front."""

    def special_text(self, which: str) -> str:
        """The text of the `bos` or `eos` token, "" when there is none."""

    def tokenize(self, text: str, *, add_bos: bool) -> Tokens: ...


class Prompter:
    """Renders conversations with one model's template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer

    def render(self, conversation: Conversation) -> Tokens:
        """The whole prompt, up to where the answer begins.

        Raises:
            InvalidRequest: the chat template refuses these messages.
        """
        return self._tokens(self._template.render(conversation, for_answer=True))

    def stable_prefix(self, conversation: Conversation) -> Tokens:
        """The tokens that prompts continuing this conversation have in common.

        Rendering the conversation alone would not do: templates add, drop and move text depending
        on what follows (docs/pitfalls.md, 1).
        """
        first, second = (self.render(conversation.followed_by((probe,))) for probe in _PROBES)
        return first[: common_length(first, second)]

    def _tokens(self, text: str) -> Tokens:
        bos = self._tokenizer.special_text("bos")
        # Many templates write BOS themselves; a second one would be another prompt.
        add_bos = self._tokenizer.adds_bos and not (bos and text.startswith(bos))
        return self._tokenizer.tokenize(text, add_bos=add_bos)
