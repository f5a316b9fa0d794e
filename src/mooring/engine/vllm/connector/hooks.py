"""What of vLLM the connector relies on, and on which versions that was tested.

vLLM calls its connector interface experimental. So this list is compared with the installed vLLM at
start, and by a test: a difference is named instead of being found out by a request.
"""

import inspect
from importlib import import_module

SUPPORTED = ("0.32",)
"""Versions on which the contract tests pass, by their first two numbers."""

_CONNECTOR = "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1"
_POOL = "vllm.v1.core.block_pool:BlockPool"

HOOKS: dict[str, tuple[str, ...]] = {
    f"{_CONNECTOR}.__init__": ("self", "vllm_config", "role", "kv_cache_config"),
    f"{_CONNECTOR}.bind_gpu_block_pool": ("self", "gpu_block_pool"),
    f"{_CONNECTOR}.on_new_request": ("self", "request"),
    f"{_CONNECTOR}.get_num_new_matched_tokens": ("self", "request", "num_computed_tokens"),
    f"{_CONNECTOR}.update_state_after_alloc": ("self", "request", "blocks", "num_external_tokens"),
    f"{_CONNECTOR}.build_connector_meta": ("self", "scheduler_output"),
    f"{_CONNECTOR}.update_connector_output": ("self", "connector_output"),
    f"{_CONNECTOR}.request_finished": ("self", "request", "block_ids"),
    f"{_CONNECTOR}.has_pending_push_work": ("self",),
    f"{_CONNECTOR}.register_kv_caches": ("self", "kv_caches"),
    f"{_CONNECTOR}.start_load_kv": ("self", "forward_context", "kwargs"),
    f"{_CONNECTOR}.wait_for_layer_load": ("self", "layer_name"),
    f"{_CONNECTOR}.save_kv_layer": ("self", "layer_name", "kv_layer", "attn_metadata", "kwargs"),
    f"{_CONNECTOR}.wait_for_save": ("self",),
    f"{_CONNECTOR}.get_transfer_results": ("self", "finished_req_ids"),
    f"{_CONNECTOR}.build_connector_worker_meta": ("self",),
    f"{_CONNECTOR}.shutdown": ("self",),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:SupportsHMA.request_finished_all_groups": (
        "self",
        "request",
        "block_ids",
    ),
    f"{_POOL}.touch": ("self", "blocks"),
    f"{_POOL}.free_blocks": ("self", "ordered_blocks"),
    "vllm.v1.core.kv_cache_manager:KVCacheBlocks.get_block_ids": ("self", "allow_none", "group_ids"),
}
"""Functions by module and name, with their parameters."""


def differences() -> list[str]:
    """Where the installed vLLM differs from HOOKS."""
    found = []
    for name, expected in HOOKS.items():
        module, _, path = name.partition(":")
        try:
            target = import_module(module)
            for part in path.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError):
            found.append(f"{path} is gone")
            continue
        actual = tuple(inspect.signature(target).parameters)  # type: ignore[arg-type]
        if actual != expected:
            found.append(f"{path} takes {actual}, not {expected}")
    return found


def is_supported(version: str) -> bool:
    return ".".join(version.split(".")[:2]) in SUPPORTED
