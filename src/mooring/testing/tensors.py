"""The tensors of a model: which there are in each family, how large, and random values for them."""

from collections.abc import Callable

import gguf
import numpy as np
from numpy.typing import NDArray

from mooring.testing.shape import Family, ModelShape

Dimensions = tuple[int, ...]
"""In NumPy order: [output, input] for matrices."""

CONVOLUTION = 4  # tokens that Mamba's convolution covers; its newest one included
SHORT_CONVOLUTION = 3  # LFM2's
STATE_SIZE = 16  # of each of Mamba's channels
TIME_STEP_RANK = 4

_GAIN = {
    "token_embd": 1.0,
    "output": 4.0,
    "attn_q": 2.5,
    "attn_k": 2.5,
    "attn_v": 2.0,
    "attn_output": 2.0,
}
"""Spread the logits, so that argmax is well defined, and let what stands far away decide them."""


def tensor_dimensions(shape: ModelShape, vocabulary: int) -> dict[str, Dimensions]:
    """Every tensor of a model by its name."""
    output_norm = "token_embd_norm" if shape.family is Family.LFM2 else "output_norm"
    tensors: dict[str, Dimensions] = {
        "token_embd.weight": (vocabulary, shape.width),
        f"{output_norm}.weight": (shape.width,),
    }
    if not shape.tied:
        tensors["output.weight"] = (vocabulary, shape.width)
    for layer, kv_heads in enumerate(shape.kv_heads_of_layers):
        block = _LAYERS[shape.family](shape, kv_heads)
        tensors |= {f"blk.{layer}.{name}": dimensions for name, dimensions in block.items()}
    return tensors


def stored_type(
    name: str, dimensions: Dimensions, weights: gguf.GGMLQuantizationType
) -> gguf.GGMLQuantizationType:
    """Matrices take the requested type; vectors, and what a scan reads, stay f32."""
    stays = len(dimensions) == 1 or _part(name) in {"ssm_a", "ssm_conv1d", "conv"}
    return gguf.GGMLQuantizationType.F32 if stays else weights


def random_tensor(random: np.random.Generator, name: str, dimensions: Dimensions) -> NDArray[np.float32]:
    """Scaled by the input's width, so that activations keep their size from layer to layer."""
    part = _part(name)
    if part.endswith("norm") or part == "ssm_d":
        return np.ones(dimensions, np.float32)
    if part == "ssm_a":  # how fast a state fades: some channels remember long, others do not
        return np.broadcast_to(-np.arange(1, STATE_SIZE + 1, dtype=np.float32), dimensions)
    if name.endswith("ssm_dt.bias"):  # the softplus of it is a time step between 0.001 and 0.1
        step = np.exp(random.uniform(np.log(0.001), np.log(0.1), dimensions))
        return np.log(np.expm1(step)).astype(np.float32)
    values = random.standard_normal(dimensions, np.float32)
    if name.endswith("bias"):
        return values * np.float32(0.1)
    return values * np.float32(_GAIN.get(part, 1.0) * dimensions[-1] ** -0.5)


def _part(name: str) -> str:
    """`attn_q` of `blk.0.attn_q.weight`."""
    return name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def _attention(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    width, kv_width = shape.width, shape.head_size * kv_heads
    return {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, width),
        "attn_k.weight": (kv_width, width),
        "attn_v.weight": (kv_width, width),
        "attn_output.weight": (width, width),
    }


def _normed_attention(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    norms = {f"attn_{row}_norm.weight": (shape.head_size,) for row in "qk"}
    return {**_attention(shape, kv_heads), **norms}


def _feed_forward(shape: ModelShape) -> dict[str, Dimensions]:
    return {
        "ffn_norm.weight": (shape.width,),
        "ffn_gate.weight": (shape.feed_forward, shape.width),
        "ffn_up.weight": (shape.feed_forward, shape.width),
        "ffn_down.weight": (shape.width, shape.feed_forward),
    }


def _llama_layer(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    return {**_attention(shape, kv_heads), **_feed_forward(shape)}


def _qwen2_layer(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    layer: dict[str, Dimensions] = {}
    for name, dimensions in _llama_layer(shape, kv_heads).items():
        layer[name] = dimensions
        if name in {"attn_q.weight", "attn_k.weight", "attn_v.weight"}:
            layer[name.replace("weight", "bias")] = dimensions[:1]
    return layer


def _gemma3_layer(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    norms = {f"post_{part}_norm.weight": (shape.width,) for part in ("attention", "ffw")}
    return {**_normed_attention(shape, kv_heads), **_feed_forward(shape), **norms}


def _mamba_layer(shape: ModelShape, _kv_heads: int) -> dict[str, Dimensions]:
    width, inner = shape.width, 2 * shape.width
    return {
        "attn_norm.weight": (width,),
        "ssm_in.weight": (2 * inner, width),
        "ssm_conv1d.weight": (inner, CONVOLUTION),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (TIME_STEP_RANK + 2 * STATE_SIZE, inner),
        "ssm_dt.weight": (inner, TIME_STEP_RANK),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, STATE_SIZE),
        "ssm_d": (inner,),
        "ssm_out.weight": (width, inner),
    }


def _lfm2_layer(shape: ModelShape, kv_heads: int) -> dict[str, Dimensions]:
    if kv_heads:
        return {**_normed_attention(shape, kv_heads), **_feed_forward(shape)}
    width = shape.width
    return {
        "attn_norm.weight": (width,),
        "shortconv.conv.weight": (width, SHORT_CONVOLUTION),
        "shortconv.in_proj.weight": (3 * width, width),
        "shortconv.out_proj.weight": (width, width),
        **_feed_forward(shape),
    }


_LAYERS: dict[Family, Callable[[ModelShape, int], dict[str, Dimensions]]] = {
    Family.QWEN2: _qwen2_layer,
    Family.LLAMA: _llama_layer,
    Family.GEMMA3: _gemma3_layer,
    Family.MAMBA: _mamba_layer,
    Family.LFM2: _lfm2_layer,
}
