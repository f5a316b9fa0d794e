"""A Hugging Face tokenizer as the engine needs it: text to token ids, and tokens to bytes.

Needs the extra `mooring[vllm]`. Knows nothing of templates or workers.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mooring.core.errors import ModelUnreadable, StartRefused
from mooring.core.prefix import Tokens

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space


class Vocabulary:
    """Implements `mooring.engine.prompt.Tokenizer`, and knows tokens' bytes. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        """Read `tokenizer.json` and `tokenizer_config.json` from a model's folder.

        Raises:
            ModelUnreadable: there is no such file, or its decoder is of an unknown kind.
            StartRefused: the extra is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise StartRefused("the vLLM engine needs an extra: pip install 'mooring[vllm]'") from error
        path = folder / "tokenizer.json"
        try:
            text = path.read_text("utf-8")
            self._plain = tokenizers.Tokenizer.from_str(text)
            self._literal = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelUnreadable(f"cannot read the tokenizer {path}: {error}") from error
        # One that takes control tokens' texts for ordinary text. It is a switch of the whole object,
        # so each setting has its own.
        self._literal.encode_special_tokens = True
        self._config = read_json(folder / "tokenizer_config.json")
        self._pieces = _pieces(json.loads(text), self._plain.get_vocab(with_added_tokens=False))
        for token, added in self._plain.get_added_tokens_decoder().items():
            self._pieces[token] = added.content.encode()
        self.control_tokens: Mapping[str, int] = {
            added.content: token
            for token, added in self._plain.get_added_tokens_decoder().items()
            if added.special
        }
        """All control tokens by their texts."""
        self._control = frozenset(self.control_tokens.values())

    @cached_property
    def adds_bos(self) -> bool:
        bos = self.control_tokens.get(self.special_text("bos"))
        return bos is not None and self._plain.encode("").ids[:1] == [bos]

    def special_text(self, which: str) -> str:
        token = self._config.get(f"{which}_token")
        if isinstance(token, dict):  # an older form
            token = token.get("content")
        return token if isinstance(token, str) else ""

    def control_texts(self) -> list[str]:
        return list(self.control_tokens)

    @cached_property
    def longest_piece_bytes(self) -> int:
        return max(map(len, self._pieces.values()))

    def tokenize(self, text: str, *, add_bos: bool, control: bool) -> Tokens:
        tokenizer = self._plain if control else self._literal
        tokens = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        return (self.control_tokens[self.special_text("bos")], *tokens) if add_bos else tokens

    def piece(self, token: int, *, control: bool = False) -> bytes:
        """The bytes a token stands for; of a control token none, unless `control` asks for its text."""
        if token in self._control and not control:
            return b""
        return self._pieces.get(token, b"")  # models have more rows than tokens


def read_json(path: Path) -> dict[str, Any]:
    """Raises ModelUnreadable: no such file, or not an object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelUnreadable(f"{path} holds no object")
    return value


def _pieces(description: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    """Each ordinary token's bytes, by how the tokenizer says they are decoded."""
    kinds = set(_decoders(description.get("decoder") or {}))
    if "ByteLevel" in kinds:
        return {token: _from_byte_level(text) for text, token in vocabulary.items()}
    if kinds & {"ByteFallback", "Metaspace"}:
        return {token: _from_sentencepiece(text) for text, token in vocabulary.items()}
    raise ModelUnreadable(
        f"the tokenizer's decoder is {' and '.join(sorted(kinds)) or 'missing'};"
        " byte-level and SentencePiece ones are served"
    )


def _decoders(decoder: Mapping[str, Any]) -> Iterator[str]:
    if decoder:
        yield str(decoder["type"])
    for part in decoder.get("decoders", ()):
        yield from _decoders(part)


def _byte_level_alphabet() -> dict[str, int]:
    """Byte-level vocabularies write a byte as a printable character: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


_BYTES = _byte_level_alphabet()


def _from_byte_level(text: str) -> bytes:
    if all(character in _BYTES for character in text):
        return bytes(_BYTES[character] for character in text)
    return text.encode()


def _from_sentencepiece(text: str) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(text):
        return bytes.fromhex(byte[1])
    return text.replace(_SPACE_MARK, " ").encode()
