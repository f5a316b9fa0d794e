"""Random-weight models as a folder of safetensors, the form that transformers and vLLM load.

Equal shapes and seeds give the weights that `write_random_model` gives, so both engines can be asked
the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from mooring.testing import tensors
from mooring.testing.shape import Family, ModelShape
from mooring.testing.vocabulary import Vocabulary, read_vocabulary

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What llama.cpp calls a part of a Qwen2, and what transformers calls it."""

_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""With the number of digits that stay together."""
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_CUT = {
    "gpt-2": [_BYTE_LEVEL | {"use_regex": True}],
    "qwen2": [_SPLIT | {"pattern": {"Regex": _CUTS % 1}}, _BYTE_LEVEL | {"use_regex": False}],
    "llama-bpe": [_SPLIT | {"pattern": {"Regex": _CUTS % 3}}, _BYTE_LEVEL | {"use_regex": False}],
}
"""How text is cut before the merges, by llama.cpp's name for it."""


def write_random_folder(
    folder: Path, shape: ModelShape, *, vocabulary: Vocabulary | None = None, seed: int = 0
) -> Path:
    """Write config, float32 weights, tokenizer and chat template of a Qwen2; returns `folder`."""
    assert shape.family is Family.QWEN2, "the other families have other names"
    vocabulary = vocabulary or read_vocabulary()
    size = shape.vocabulary or len(vocabulary.tokens)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(shape, vocabulary, size))
    _write_json(folder / "tokenizer.json", _tokenizer(vocabulary))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": vocabulary.tokens[vocabulary.eos],
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": vocabulary.chat_template,
        },
    )
    random = np.random.default_rng(seed)
    weights = {
        _transformers_name(name): tensors.random_tensor(random, name, dimensions)
        for name, dimensions in tensors.tensor_dimensions(shape, size).items()
    }
    _write_safetensors(folder / "model.safetensors", weights)
    return folder


def _config(shape: ModelShape, vocabulary: Vocabulary, size: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": shape.tied,
        "vocab_size": size,
        "eos_token_id": vocabulary.eos,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    control = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind == gguf.TokenType.CONTROL
    ]
    return {
        "version": "1.0",
        "added_tokens": control,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _CUT[vocabulary.pre]},
        "decoder": _BYTE_LEVEL | {"use_regex": True},
        "model": {
            "type": "BPE",
            "ignore_merges": vocabulary.pre == "llama-bpe",  # a word that is a token is taken as it is
            "vocab": {token: number for number, token in enumerate(vocabulary.tokens)},
            "merges": list(vocabulary.merges),
        },
    }


def _transformers_name(name: str) -> str:
    """`model.layers.0.self_attn.q_proj.weight` of `blk.0.attn_q.weight`."""
    part, _, kind = name.rpartition(".")
    if part.startswith("blk."):
        _, layer, part = part.split(".")
        return f"model.layers.{layer}.{_NAMES[part]}.{kind}"
    return f"{_NAMES[part]}.{kind}"


def _write_safetensors(path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """The format: a header's length, the header as JSON, and the tensors in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in weights.items():
        start, end = end, end + values.nbytes
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in weights.values():
            file.write(np.ascontiguousarray(values).data)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
