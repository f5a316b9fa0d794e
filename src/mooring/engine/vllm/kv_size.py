"""How many bytes of KV a token takes, from a model's `config.json`. Pure; estimates, for sizing."""

from collections.abc import Mapping
from typing import Any

_BYTES_OF = {"float32": 4, "float": 4, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_HALF_BYTES = 2


def kv_bytes_per_token(config: Mapping[str, Any], kv_type: str = "auto") -> int:
    """All layers, keys and values; `kv_type` is vLLM's `--kv-cache-dtype`.

    Multi-head latent attention (DeepSeek, Kimi K2) stores one compressed vector and one rotary key a
    layer. Layers with a sliding window are counted as if they kept everything.
    """
    text = config.get("text_config", config)  # of a model that also sees
    if kv_type == "auto":
        kv_type = str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "")
    width = _BYTES_OF.get(kv_type, _HALF_BYTES)
    layers = int(text["num_hidden_layers"])
    if rank := text.get("kv_lora_rank"):
        return layers * (int(rank) + int(text["qk_rope_head_dim"])) * width
    heads = int(text["num_attention_heads"])
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_size = int(text.get("head_dim") or text["hidden_size"] // heads)
    return 2 * layers * kv_heads * head_size * width
