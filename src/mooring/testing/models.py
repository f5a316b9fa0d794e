"""Random-weight models for tests and benchmarks, so that neither downloads anything.

What such a model says means nothing, but it is a real model: llama.cpp loads it, evaluates it and
caches it like any other, in a time that depends on its shape and not on its weights. Needs the
extra `mooring[models]`.
"""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from mooring.testing import tensors
from mooring.testing.shape import Family, ModelShape
from mooring.testing.vocabulary import Vocabulary, read_vocabulary

_F32 = np.dtype(np.float32)


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

    writer = gguf.GGUFWriter(path, shape.family)
    _describe(writer, shape)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([*vocabulary.tokens, *unused])
    writer.add_token_types([*vocabulary.types, *[gguf.TokenType.UNUSED] * len(unused)])
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template or vocabulary.chat_template)
    _write_tensors(writer, tensors.tensor_dimensions(shape, size), weights, seed, on_tensor)
    return path


def _describe(writer: gguf.GGUFWriter, shape: ModelShape) -> None:
    writer.add_name(f"random-{shape.layers}x{shape.width}")
    writer.add_description("Random weights: what this model says means nothing.")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    kv_heads = shape.kv_heads_of_layers
    writer.add_head_count_kv(kv_heads if len(set(kv_heads)) > 1 else shape.kv_heads)
    if shape.heads:
        writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    match shape.family:
        case Family.MAMBA:
            writer.add_ssm_conv_kernel(tensors.CONVOLUTION)
            writer.add_ssm_inner_size(2 * shape.width)
            writer.add_ssm_state_size(tensors.STATE_SIZE)
            writer.add_ssm_time_step_rank(tensors.TIME_STEP_RANK)
        case Family.GEMMA3:
            assert shape.window is not None
            writer.add_sliding_window(shape.window)
            writer.add_sliding_window_pattern(2)
        case Family.LFM2:
            writer.add_shortconv_l_cache(tensors.SHORT_CONVOLUTION)
        case Family.LLAMA:
            writer.add_rope_dimension_count(shape.head_size)
        case Family.QWEN2:
            pass


def _write_tensors(
    writer: gguf.GGUFWriter,
    dimensions_of: dict[str, tensors.Dimensions],
    weights: gguf.GGMLQuantizationType,
    seed: int,
    on_tensor: Callable[[int, int], None] | None,
) -> None:
    """The file's header, and then tensor by tensor, so that no model has to fit into memory."""
    for name, dimensions in dimensions_of.items():
        kind = tensors.stored_type(name, dimensions, weights)
        stored = gguf.quant_shape_to_byte_shape(dimensions, kind)
        writer.add_tensor_info(name, dimensions, _F32, int(np.prod(stored)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    for done, (name, dimensions) in enumerate(dimensions_of.items(), start=1):
        values = tensors.random_tensor(random, name, dimensions)
        kind = tensors.stored_type(name, dimensions, weights)
        writer.write_tensor_data(gguf.quantize(values, kind))
        if on_tensor is not None:
            on_tensor(done, len(dimensions_of))
    writer.close()
