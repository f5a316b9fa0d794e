"""The command line of a worker that Mooring can use. Pure."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONNECTOR = "MooringConnector"
CONNECTOR_MODULE = "mooring.engine.vllm.connector"
MIDDLEWARE = "mooring.engine.vllm.announcement.Announcement"


@dataclass(frozen=True)
class WorkerPlan:
    """What an operator decides about a worker."""

    model: str
    """A folder, or a name on Hugging Face."""
    tier: Path
    """The shared tier's folder: the same bytes on every worker's machine."""
    context_tokens: int
    """The most tokens of one request."""
    kv_bytes: int | None = None
    """Memory for KV on the device; None: what vLLM takes by itself."""
    block_tokens: int | None = None
    """None: vLLM's own choice for the platform."""
    host: str = "127.0.0.1"
    port: int = 8000
    served_name: str | None = None
    revision: str | None = None
    """The commit of a model on Hugging Face: it stands for the weights, which nobody hashes there."""


def worker_arguments(plan: WorkerPlan) -> list[str]:
    """`vllm serve` and its arguments."""
    tier: dict[str, Any] = {"tier": "files", "root": str(plan.tier)}
    if plan.revision is not None:
        tier["weights"] = f"{plan.model}@{plan.revision}"
    transfer: dict[str, Any] = {
        "kv_connector": CONNECTOR,
        "kv_connector_module_path": CONNECTOR_MODULE,
        "kv_role": "kv_both",
        "kv_load_failure_policy": "fail",  # anything else would count what it recomputes as cached
        "kv_connector_extra_config": tier,
    }
    arguments = ["vllm", "serve", plan.model, "--host", plan.host, "--port", str(plan.port)]
    if plan.revision is not None:
        arguments += ["--revision", plan.revision]
    if plan.served_name is not None:
        arguments += ["--served-model-name", plan.served_name]
    arguments += ["--max-model-len", str(plan.context_tokens)]
    if plan.kv_bytes is not None:
        arguments += ["--kv-cache-memory-bytes", str(plan.kv_bytes)]
    if plan.block_tokens is not None:
        arguments += ["--block-size", str(plan.block_tokens)]
    return [
        *arguments,
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--structured-outputs-config.backend",
        "guidance",
        "--middleware",
        MIDDLEWARE,
        "--kv-transfer-config",
        json.dumps(transfer, separators=(",", ":")),
    ]


@dataclass(frozen=True)
class Budget:
    """How many tokens fit on a worker's device."""

    tokens: int
    """All together."""
    pinned_tokens: int
    """Of them, kept prefixes: one request of full length must always find room beside them."""


def budget(kv_bytes: int, bytes_per_token: int, context_tokens: int, block_tokens: int) -> Budget:
    """By the bytes that a token takes on one worker."""
    blocks = kv_bytes // (bytes_per_token * block_tokens)
    reserved = math.ceil(context_tokens / block_tokens) + 1
    return Budget(blocks * block_tokens, max(0, blocks - reserved) * block_tokens)
