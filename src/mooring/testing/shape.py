"""The shapes of models: how an architecture remembers, and the dimensions it has."""

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """An architecture, by llama.cpp's name. What differs is how a layer remembers earlier tokens."""

    QWEN2 = "qwen2"
    """Attention over everything."""
    LLAMA = "llama"
    """Attention over everything, without Qwen2's biases."""
    GEMMA3 = "gemma3"
    """Attention over a window of the last tokens in every layer but each second one."""
    MAMBA = "mamba"
    """A recurrent state of constant size, and no attention."""
    LFM2 = "lfm2"
    """A short recurrent state and attention over everything, layer by layer in turn."""


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a model."""

    layers: int
    heads: int
    kv_heads: int
    width: int
    """Embedding size; the head size is `width / heads`."""
    feed_forward: int
    vocabulary: int | None = None
    """Tokens; None takes the vocabulary as it is, more than it has pads it with unused ones."""
    context: int = 32_768
    tied: bool = False
    """The embedding is also the output matrix. Untied, random answers wander instead of repeating."""
    family: Family = Family.QWEN2
    window: int | None = None
    """Tokens that a windowed layer sees; GEMMA3 has one, no other family does."""

    def __post_init__(self) -> None:
        assert (self.window is not None) == (self.family is Family.GEMMA3), self
        assert (self.heads == 0) == (self.family is Family.MAMBA), self

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def kv_heads_of_layers(self) -> list[int]:
        """0 for a layer without attention."""
        if self.family is Family.LFM2:
            return [self.kv_heads * (layer % 2) for layer in range(self.layers)]
        return [self.kv_heads] * self.layers


TINY = ModelShape(layers=2, heads=4, kv_heads=2, width=64, feed_forward=128)
"""For tests: about half a million parameters, and so have the others beside it."""
TINY_LLAMA = ModelShape(2, 4, 2, 64, 128, family=Family.LLAMA)
TINY_WINDOWED = ModelShape(4, 4, 2, 64, 128, family=Family.GEMMA3, window=64)
TINY_RECURRENT = ModelShape(2, 0, 0, 64, 0, family=Family.MAMBA)
TINY_HYBRID = ModelShape(4, 4, 2, 64, 128, family=Family.LFM2)
TINY_WIDE_HEADS = ModelShape(layers=2, heads=2, kv_heads=1, width=128, feed_forward=256)
"""Heads of 64, which is the smallest that vLLM's attention takes everywhere."""
DEMO = ModelShape(layers=4, heads=4, kv_heads=2, width=256, feed_forward=768)
"""The bundled model's shape: about 4 million parameters."""
HALF = ModelShape(24, 14, 2, 896, 4864, vocabulary=32_000, tied=True)
"""For benchmarks: 387 million parameters, the shape of a half-billion Qwen2."""
