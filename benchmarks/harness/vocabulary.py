"""A vocabulary for random-weight models whose answers read back as the tokens they were drawn as.

Random weights draw any token. Of an everyday vocabulary that gives broken UTF-8, which servers hold
back, so that first tokens are seen late; and text that tokenises into other tokens, so that no answer
could be found again in the next turn. Here nearly every token is a whole word: a space and letters.
"""

import string
from collections.abc import Iterator
from dataclasses import replace

from gguf import TokenType

from mooring.testing import Vocabulary, read_vocabulary

_SPACE, _NEWLINE = "Ġ", "Ċ"  # as byte-level BPE writes them
_BYTES = {_SPACE, _NEWLINE, *string.ascii_letters, *string.digits, *string.punctuation}


def word_vocabulary(size: int) -> Vocabulary:
    """`size` tokens: the bundled model's control tokens, the bytes of printable ASCII, and words.

    A word's merges go letter by letter from its space on, so that its text is one token again.
    """
    bundled = read_vocabulary()
    kept = [
        (token, kind)
        for token, kind in zip(bundled.tokens, bundled.types, strict=True)
        if kind == TokenType.CONTROL or token in _BYTES
    ]
    tokens, types = [token for token, _ in kept], [kind for _, kind in kept]
    eos = tokens.index(bundled.tokens[bundled.eos])
    merges = []
    for stem, letter in _growth():
        if len(tokens) == size:
            break
        tokens.append(stem + letter)
        types.append(TokenType.NORMAL)
        merges.append(f"{stem} {letter}")
    return replace(bundled, tokens=tokens, types=types, merges=merges, eos=eos)


def _growth() -> Iterator[tuple[str, str]]:
    """Every word after its stem: one letter, then two, and so on."""
    stems = [_SPACE]
    while True:
        grown = [(stem, letter) for stem in stems for letter in string.ascii_lowercase]
        yield from grown
        stems = [stem + letter for stem, letter in grown]
