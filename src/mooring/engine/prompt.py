"""Conversations to tokens: the whole prompt, and the part of it that every continuation shares.

Only token equality is reuse, so a prompt is always tokenised whole: text cut anywhere else can merge
into other tokens (docs/pitfalls.md, 2).
"""

from dataclasses import replace
from typing import Protocol

from mooring.core.conversation import Conversation
from mooring.core.errors import PromptTooLong
from mooring.core.prefix import Tokens, common_length
from mooring.engine.control_guard import ControlGuard
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

    def control_texts(self) -> list[str]:
        """The texts of all control tokens, such as the ones that begin and end turns."""

    @property
    def longest_piece_bytes(self) -> int:
        """No token stands for more bytes of text than this."""

    def tokenize(self, text: str, *, add_bos: bool, control: bool) -> Tokens:
        """Token ids; `control` recognises control tokens by their texts."""


class Prompter:
    """Renders conversations with one model's template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, context_tokens: int) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._guard = ControlGuard(tokenizer.control_texts())
        self._context_tokens = context_tokens
        self._max_bytes = context_tokens * tokenizer.longest_piece_bytes

    def render(self, conversation: Conversation) -> Tokens:
        """The whole prompt, up to where the answer begins.

        The answer to a last message that is `partial` goes on where that message stops.

        Raises:
            InvalidRequest: the chat template refuses these messages.
            PromptTooLong: so long that no tokenizer can make it fit.
        """
        guarded, begun = self._guard.hide(conversation), ""
        if conversation.messages and conversation.messages[-1].get("partial"):
            # Templates know no such message: the beginning of the answer stands where the answer will.
            *before, last = guarded.messages
            guarded, begun = replace(guarded, messages=tuple(before)), last["content"]
        return self._tokens(self._template.render(guarded, for_answer=True) + begun)

    def stable_prefix(self, conversation: Conversation) -> Tokens:
        """The tokens that prompts continuing this conversation have in common.

        Rendering the conversation alone would not do: templates add, drop and move text depending
        on what follows (docs/pitfalls.md, 1).
        """
        first, second = (self.render(conversation.followed_by((probe,))) for probe in _PROBES)
        return first[: common_length(first, second)]

    def _tokens(self, text: str) -> Tokens:
        if len(text) > self._max_bytes:
            raise PromptTooLong(
                f"messages: {len(text)} characters do not fit into the model's context of"
                f" {self._context_tokens} tokens",
                param="messages",
            )
        bos = self._tokenizer.special_text("bos")
        # Many templates write BOS themselves; a second one would be another prompt.
        add_bos = self._tokenizer.adds_bos and not (bos and text.startswith(bos))
        tokens: Tokens = ()
        for piece, control in self._guard.reveal(text):
            tokens += self._tokenizer.tokenize(piece, add_bos=add_bos and not tokens, control=control)
        return tokens
