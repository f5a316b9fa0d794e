"""Which KV bytes are interchangeable between vLLM engines."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

from mooring.engine.vllm.connector.refusals import StartRefused
from mooring.engine.weights import hash_weights

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


def fingerprint(vllm_config: Any, kv_cache_config: Any, versions: list[str], weights: str | None) -> str:
    """What a block depends on beside its tokens, as 32 hex digits.

    Block count, sequence count and threads are left out: blocks move freely between those.

    Raises:
        StartRefused: the weights cannot be told.
    """
    model, cache = vllm_config.model_config, vllm_config.cache_config
    layers = [str(group.kv_cache_spec) for group in kv_cache_config.kv_cache_groups]
    parts = [
        f"weights={weights or _hash_of(model.model)}",
        f"config={model.hf_config.to_json_string()}",
        f"dtype={model.dtype} {cache.cache_dtype} quantization={model.quantization}",
        f"blocks={cache.block_size} {layers}",
        f"layout={kv_cache_config.kv_cache_layout}",
        *versions,
    ]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _hash_of(model: str) -> str:
    folder = Path(model)
    files = sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)})
    if not files:
        raise StartRefused(
            f"{model} is not a folder with weights, so they cannot be told from others: serve a local"
            " folder, or set weights to a name that changes whenever they do"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mooring"
    with contextlib.suppress(OSError):  # then the weights are hashed at every start
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    return hash_weights(files, cache / f"weights-{name}.json")
