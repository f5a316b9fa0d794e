"""Random-weight models for tests and benchmarks, so that neither downloads anything.

What such a model says means nothing, but it is a real model: llama.cpp loads it, evaluates it and
caches it like any other, in a time that depends on its shape and not on its weights. Needs the
extra `mooring[models]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

_F32 = np.dtype(np.float32)
_GAIN = {
    "token_embd": 1.0,
    "output": 4.0,
    "attn_q": 2.5,
    "attn_k": 2.5,
    "attn_v": 2.0,
    "attn_output": 2.0,
}
"""Spread the logits, so that argmax is well defined, and let what stands far away decide them."""


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a Qwen2-family model."""

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


TINY = ModelShape(layers=2, heads=4, kv_heads=2, width=64, feed_forward=128)
"""For tests: about half a million parameters."""
DEMO = ModelShape(layers=4, heads=4, kv_heads=2, width=256, feed_forward=768)
"""Small enough to compute thousands of tokens a second: about 4 million parameters."""
HALF = ModelShape(24, 14, 2, 896, 4864, vocabulary=32_000, tied=True)
"""For benchmarks: 387 million parameters, the shape of a half-billion Qwen2."""


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary and the chat template that goes with it."""

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    eos: int
    chat_template: str
    pre: str
    """llama.cpp's name for how text is cut before the merges."""


def bundled_model() -> Path:
    """The model that ships with Mooring."""
    return Path(str(resources.files("mooring") / "assets" / "demo.gguf"))


def read_vocabulary(path: Path | None = None) -> Vocabulary:
    """The vocabulary of a GGUF; of the bundled model when no path is given."""
    reader = gguf.GGUFReader(path or bundled_model())

    def field(key: str) -> object:
        found = reader.get_field(key)
        assert found is not None, f"{path} has no {key}"
        return found.contents()

    return Vocabulary(
        tokens=field("tokenizer.ggml.tokens"),  # type: ignore[arg-type]
        types=field("tokenizer.ggml.token_type"),  # type: ignore[arg-type]
        merges=field("tokenizer.ggml.merges"),  # type: ignore[arg-type]
        eos=int(field("tokenizer.ggml.eos_token_id")),  # type: ignore[call-overload]
        chat_template=str(field("tokenizer.chat_template")),
        pre=str(field("tokenizer.ggml.pre")),
    )


def write_random_model(
    path: Path,
    shape: ModelShape,
    *,
    vocabulary: Vocabulary | None = None,
    chat_template: str | None = None,
    weights: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    seed: int = 0,
    on_tensor: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a GGUF of the given shape with normally distributed weights; returns `path`.

    `chat_template` replaces the vocabulary's own. Equal arguments give equal weights.
    `on_tensor(done, total)` is called after each tensor.
    """
    vocabulary = vocabulary or read_vocabulary()
    size = shape.vocabulary or len(vocabulary.tokens)
    assert size >= len(vocabulary.tokens), "a vocabulary can be padded, not cut"
    unused = [f"<|unused_{n}|>" for n in range(size - len(vocabulary.tokens))]

    writer = gguf.GGUFWriter(path, "qwen2")
    _describe(writer, shape)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([*vocabulary.tokens, *unused])
    writer.add_token_types([*vocabulary.types, *[gguf.TokenType.UNUSED] * len(unused)])
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template or vocabulary.chat_template)
    _write_tensors(writer, _tensor_shapes(shape, size), weights, seed, on_tensor)
    return path


def _describe(writer: gguf.GGUFWriter, shape: ModelShape) -> None:
    writer.add_name(f"random-{shape.layers}x{shape.width}")
    writer.add_description("Random weights: what this model says means nothing.")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)


def _write_tensors(
    writer: gguf.GGUFWriter,
    tensors: dict[str, tuple[int, ...]],
    weights: gguf.GGMLQuantizationType,
    seed: int,
    on_tensor: Callable[[int, int], None] | None,
) -> None:
    """The file's header, and then tensor by tensor, so that no model has to fit into memory."""
    for name, dimensions in tensors.items():
        kind = _stored_type(dimensions, weights)
        stored = gguf.quant_shape_to_byte_shape(dimensions, kind)
        writer.add_tensor_info(name, dimensions, _F32, int(np.prod(stored)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    for done, (name, dimensions) in enumerate(tensors.items(), start=1):
        values = _random_tensor(random, name, dimensions)
        writer.write_tensor_data(gguf.quantize(values, _stored_type(dimensions, weights)))
        if on_tensor is not None:
            on_tensor(done, len(tensors))
    writer.close()


def _tensor_shapes(shape: ModelShape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Every tensor's dimensions in NumPy order: [output, input] for matrices."""
    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, width),
        "output_norm.weight": (width,),
    }
    if not shape.tied:
        tensors["output.weight"] = (vocabulary, width)
    for layer in range(shape.layers):
        block = {
            "attn_norm.weight": (width,),
            "attn_q.weight": (width, width),
            "attn_q.bias": (width,),
            "attn_k.weight": (kv_width, width),
            "attn_k.bias": (kv_width,),
            "attn_v.weight": (kv_width, width),
            "attn_v.bias": (kv_width,),
            "attn_output.weight": (width, width),
            "ffn_norm.weight": (width,),
            "ffn_gate.weight": (shape.feed_forward, width),
            "ffn_up.weight": (shape.feed_forward, width),
            "ffn_down.weight": (width, shape.feed_forward),
        }
        tensors |= {f"blk.{layer}.{name}": dimensions for name, dimensions in block.items()}
    return tensors


def _random_tensor(
    random: np.random.Generator, name: str, dimensions: tuple[int, ...]
) -> NDArray[np.float32]:
    """Scaled by the input's width, so that activations keep their size from layer to layer."""
    if name.endswith("norm.weight"):
        return np.ones(dimensions, np.float32)
    values = random.standard_normal(dimensions, np.float32)
    if name.endswith("bias"):
        return values * np.float32(0.1)
    part = name.removesuffix(".weight").rpartition(".")[2]
    return values * np.float32(_GAIN.get(part, 1.0) * dimensions[-1] ** -0.5)


def _stored_type(
    dimensions: tuple[int, ...], weights: gguf.GGMLQuantizationType
) -> gguf.GGMLQuantizationType:
    """Vectors stay f32, as llama.cpp expects; matrices take the requested type."""
    return gguf.GGMLQuantizationType.F32 if len(dimensions) == 1 else weights
