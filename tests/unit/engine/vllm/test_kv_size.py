"""Bytes of KV a token, of models that everybody knows (docs/scaling.md)."""

import pytest

from mooring.engine.vllm.kv_size import kv_bytes_per_token

QWEN2_05B = {
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "hidden_size": 896,
    "torch_dtype": "bfloat16",
}
LLAMA3_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "torch_dtype": "bfloat16",
}
LLAMA3_70B = LLAMA3_8B | {
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "hidden_size": 8192,
}
QWEN3_32B = {
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 5120,
    "head_dim": 128,
}
DEEPSEEK_V3 = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN2_05B, 12_288),
        (LLAMA3_8B, 131_072),
        (LLAMA3_70B, 327_680),
        (QWEN3_32B, 262_144),
        (DEEPSEEK_V3, 70_272),
    ],
)
def test_a_token_takes_what_its_layers_store(config: dict, expected: int) -> None:
    assert kv_bytes_per_token(config) == expected


def test_the_type_of_the_cache_counts_not_that_of_the_weights() -> None:
    assert kv_bytes_per_token(LLAMA3_8B, "fp8") == 65_536
    assert kv_bytes_per_token(LLAMA3_8B | {"torch_dtype": "float32"}) == 262_144


def test_a_model_that_also_sees_has_its_text_part_apart() -> None:
    assert kv_bytes_per_token({"text_config": LLAMA3_8B, "torch_dtype": "bfloat16"}) == 131_072
