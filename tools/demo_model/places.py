"""What stands at a place: the vector of WIDTH that its token is embedded as, and how it is divided.

First the token's identity, for saying it. Then its slots: two short codes for comparing it and some
marks, of the token itself and, once layers 0 and 1 have written them there, of the ten before it. Last
two marks of its own. Tokens that differ in a space or a capital only have the same codes, and
identities that are alike. Function words hardly have a code.
"""

import math

import torch
from model import WIDTH
from tokenizer import CONTROL as CONTROL_TOKENS
from tokenizers import Tokenizer
from torch import Tensor

IDENTITY = 96
TOKEN = slice(0, IDENTITY)
WORD = 64
"""The dimensions of it that `the`, ` the` and ` The` have in common."""
CODE = 10
"""Dimensions of one code. A head compares with one of two: what one confuses, the other tells apart."""
CODES = (slice(0, CODE), slice(CODE, 2 * CODE))
MASS, COMMON, CONTROL, NEWLINE, CALL, WITH, OPENING, ARGUMENTS = range(2 * CODE, 2 * CODE + 8)
"""In a slot: how much the token counts, that it is a function word, a turn's mark, the end of a line, or
one of MARKED."""
SLOT, FAR_SLOT = 2 * CODE + 8, 2 * CODE + 4
SLOTS = 10
NEAR_SLOTS = 4
"""So many slots hold all of this, from the token itself on; those further back only what comes first."""
CODE_NORM, MASS_NORM, MARK_NORM, DECIDING_NORM = 0.65, 0.4, 0.3, 0.3
COMMON_FROM, COMMON_SHARE = 0.01, 0.3
"""From which share of the text on a token is a function word, and what is left of its code."""
BEFORE_A_VALUE = ("is", "|", ":", "=", '":')
MARKED = {CALL: ("Call", " call"), WITH: (" with",), OPENING: ('{"',), ARGUMENTS: (' {"',)}
"""What stands before a tool's name and before its arguments, in a question and in a call."""


def slot(number: int) -> slice:
    """Of the token so many places back; 0 is the token itself."""
    near = min(number, NEAR_SLOTS)
    start = IDENTITY + near * SLOT + (number - near) * FAR_SLOT
    return slice(start, start + (SLOT if number < NEAR_SLOTS else FAR_SLOT))


ENDING = slot(SLOTS).stop
"""That a token ends a question: it follows all the words of the key, and is not the value."""
ENDINGS = ("<|im_end|>", "?", "\n")
DECIDING = ENDING + 1
"""That a value follows, or that there is none: only there may a run end at the first token."""
DECIDERS = ("is", "in", "from", "earns", "at", "costs", "means")
assert DECIDING < WIDTH


def embed(tokenizer: Tokenizer, counts: Tensor, random: torch.Generator) -> Tensor:
    """What each token is embedded as [tokens, WIDTH]: its identity, slot 0 and the marks of its own.

    `counts[token]` is how often the token stands in the training text.
    """
    rows = torch.zeros(tokenizer.get_vocab_size(), WIDTH)
    rows[:, TOKEN] = _identities(tokenizer, random)
    rows[:, slot(0)] = _codes(tokenizer, counts / counts.sum() > COMMON_FROM, random)
    rows[_tokens(tokenizer, ENDINGS), ENDING] = 1.0
    rows[_tokens(tokenizer, DECIDERS), DECIDING] = DECIDING_NORM
    return rows


def _stems(tokenizer: Tokenizer) -> list[str]:
    """What a token has in common with others: ` The`, `the` and ` the`; ` is` and ` |`."""
    stems = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token], skip_special_tokens=False).strip().lower()
        stems.append("is" if text in BEFORE_A_VALUE else text)
    return stems


def _tokens(tokenizer: Tokenizer, texts: tuple[str, ...]) -> list[int]:
    """Those whose text, without spaces around it, is one of these."""
    said = [tokenizer.decode([t], skip_special_tokens=False) for t in range(tokenizer.get_vocab_size())]
    return [token for token, text in enumerate(said) if text in texts or text.strip(" ") in texts]


def _identities(tokenizer: Tokenizer, random: torch.Generator) -> Tensor:
    """Unit vectors [tokens, IDENTITY]: what a word is, what a token is, and how it is written."""
    shared: dict[str, Tensor] = {}
    rows = []
    for token, stem in enumerate(_stems(tokenizer)):
        text = tokenizer.decode([token], skip_special_tokens=False)
        word = shared.setdefault(stem, _unit(torch.randn(WORD, generator=random)))
        own = _unit(torch.randn(IDENTITY - WORD - 2, generator=random))
        spaced = 1.0 if text.startswith(" ") else -1.0
        capital = 1.0 if text.strip()[:1].isupper() else -1.0
        rows.append(torch.cat((0.65 * word, 0.6 * own, torch.tensor((0.4 * spaced, 0.3 * capital)))))
    return _unit(torch.stack(rows))


def _codes(tokenizer: Tokenizer, common: Tensor, random: torch.Generator) -> Tensor:
    """Unit vectors [tokens, SLOT]: tokens that differ in a space or a capital have the same."""
    shared: dict[str, Tensor] = {}
    rows = []
    newlines = set(_tokens(tokenizer, ("\n",)))
    control = {tokenizer.token_to_id(mark) for mark in CONTROL_TOKENS}
    for token, stem in enumerate(_stems(tokenizer)):
        drawn = shared.setdefault(stem, torch.randn(2, CODE, generator=random))
        row = torch.zeros(SLOT)
        if token in control:
            row[CONTROL] = 1.0
        elif token in newlines:
            row[NEWLINE] = 1.0
        else:
            weight = COMMON_SHARE if common[token] or not stem else 1.0
            row[: 2 * CODE] = (_unit(drawn) * CODE_NORM * weight).flatten()
            row[MASS] = MASS_NORM * weight**2
            for mark, texts in MARKED.items():
                if tokenizer.decode([token], skip_special_tokens=False) in texts:
                    row[mark] = MARK_NORM
            row[COMMON] = math.sqrt(max(0.0, 1.0 - float(row.square().sum())))
        rows.append(row)
    return torch.stack(rows)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)
