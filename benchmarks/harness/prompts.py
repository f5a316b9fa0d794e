"""Texts of a wanted length in tokens, and conversations as the server renders them."""

import random
import string
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from mooring.app import bundled
from mooring.core.conversation import Conversation
from mooring.core.errors import PromptTooLong
from mooring.engine.llamacpp.binding import Model, measure_state_size
from mooring.engine.prompt import Prompter
from mooring.engine.template import ChatTemplate

Message = dict[str, Any]


class Prompts:
    """For one model. The peer gets these token ids, so that both servers evaluate the same prompt."""

    def __init__(self, model_path: Path) -> None:
        self._model = Model(model_path)
        template = ChatTemplate(self._model.metadata["tokenizer.chat_template"], bos="", eos="")
        self._prompter = Prompter(template, self._model, self._model.trained_context_tokens)
        self._manual = bundled("manual.md").read_text("utf-8").encode("ascii", "ignore").decode()

    def close(self) -> None:
        self._model.close()

    @property
    def kv_bytes_per_token(self) -> int:
        """With f16 K and V."""
        size = measure_state_size(self._model, kv_type="f16", flash_attention=False)
        return size.per_token

    def tokens(self, text: str) -> list[int]:
        """Of a text by itself: an answer's are the ones that were drawn (`vocabulary` says why)."""
        return list(self._model.tokenize(text, add_bos=False, control=False))

    def render(self, *messages: Message) -> list[int]:
        """The whole prompt, up to where the answer begins."""
        return list(self._prompter.render(_conversation(messages)))

    def prefix(self, *messages: Message) -> list[int]:
        """What prompts that continue these messages have in common: what a cache of them holds."""
        return list(self._prompter.stable_prefix(_conversation(messages)))

    def system(self, tokens: int, label: str = "") -> Message:
        """A system message whose stable prefix has `tokens` tokens, or just below.

        Different labels give texts that differ from their first word.
        """
        opening = f"{label}\n" if label else ""
        text = opening + self._manual * (1 + 16 * tokens // len(self._manual))

        def message(characters: int) -> Message:
            return {"role": "system", "content": text[:characters]}

        low, high = 1, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(message(middle), tokens):
                low = middle
            else:
                high = middle
        return message(low)

    def _fits(self, message: Message, tokens: int) -> bool:
        try:
            return len(self.prefix(message)) <= tokens
        except PromptTooLong:
            return False

    def questions(self, count: int, *, seed: int = 0) -> list[Message]:
        """User messages of equal length in tokens that differ from their first characters on.

        So nothing but the system message is there to be reused between requests that ask them.
        """
        drawn = random.Random(seed)
        asked = "which code says that the brake is worn?"
        texts: dict[str, None] = {}
        while len(texts) < 40 + 8 * count:
            texts["".join(drawn.choices(string.ascii_lowercase, k=6)).title() + f": {asked}"] = None
        messages = [{"role": "user", "content": text} for text in texts]
        lengths = [len(self.render(message)) for message in messages]
        ((usual, _),) = Counter(lengths).most_common(1)
        chosen = [m for m, length in zip(messages, lengths, strict=True) if length == usual]
        assert len(chosen) >= count, f"{len(chosen)} of {count} questions have {usual} tokens"
        return chosen[:count]


def _conversation(messages: tuple[Message, ...]) -> Conversation:
    return Conversation(messages, (), date.today())
