"""What a model's sequences allow: it depends on how the model remembers the tokens before.

Measured with a model of each kind; docs/decisions/0010 has the figures.
"""

from dataclasses import dataclass
from enum import Enum


class Cutting(Enum):
    """Where a sequence can be cut, and so in what pieces it can be stored and shared."""

    ANYWHERE = "anywhere"
    """Behind every token. Any range of it can be copied, exported and imported by itself."""
    WHOLE = "whole"
    """Nowhere. It is copied, exported, imported and forgotten as a whole: a checkpoint at its end."""
    NOT_SERVED = "not served"
    """There are no sequences to go on with, one token after the other."""


@dataclass(frozen=True)
class Sequences:
    """What can be done with the sequences of a model, and why not more."""

    cutting: Cutting
    because: str
    """How the model remembers, as the end of a sentence that begins with "it"."""
    survive_abort: bool = True
    """After an aborted `decode`, sequences are as they were or can be cut back to it. If not, every one
    in the buffer may be damaged, those outside the batch too, and its positions do not show it."""
    repeat_last: bool = True
    """The last token can be cut off and evaluated again, which gives its logits. If not, at least one
    token has to follow a checkpoint."""


ATTENTION = Sequences(Cutting.ANYWHERE, "attends to every token before")
WINDOW = Sequences(Cutting.WHOLE, "uses sliding-window attention")
STATE = Sequences(Cutting.WHOLE, "keeps recurrent state", survive_abort=False, repeat_last=False)
ENCODER = Sequences(Cutting.NOT_SERVED, "has an encoder")
DIFFUSION = Sequences(Cutting.NOT_SERVED, "is a diffusion model")
NOT_CAUSAL = Sequences(Cutting.NOT_SERVED, "attends to later tokens too, as embedding models do")
