"""What the connector does not serve, said at start instead of by wrong answers later."""

from typing import Any

from mooring.engine.vllm.connector import hooks
from mooring.engine.vllm.connector.settings import Settings


class StartRefused(Exception):
    """vLLM must not start like this; the message says what to change."""


def check_start(vllm_config: Any, kv_cache_config: Any, version: str, settings: Settings) -> None:
    """Raises StartRefused."""
    if not hooks.is_supported(version) and not settings.untested_version:
        raise StartRefused(
            f"vLLM {version} was not tested with Mooring's connector, which supports"
            f" {', '.join(hooks.SUPPORTED)}; set untested_version to true to try it"
        )
    if found := hooks.differences():
        raise StartRefused(f"vLLM {version} has other connector hooks: {'; '.join(found)}")
    _check_parallel(vllm_config.parallel_config)
    _check_cache(vllm_config, kv_cache_config)


def _check_parallel(parallel: Any) -> None:
    if parallel.world_size > 1:
        raise StartRefused(
            f"a worker has to be one device here, and this one spans {parallel.world_size}: Mooring's"
            " connector does not do tensor, pipeline or context parallelism. Start one vLLM a device"
        )
    if parallel.data_parallel_size > 1:
        raise StartRefused("data_parallel_size must be 1: start several vLLM servers instead")


def _check_cache(vllm_config: Any, kv_cache_config: Any) -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    if vllm_config.kv_transfer_config.kv_load_failure_policy != "fail":
        raise StartRefused(
            'kv_load_failure_policy must be "fail": the other policy recomputes in silence'
        )
    if vllm_config.kv_transfer_config.kv_role != "kv_both":
        raise StartRefused('kv_role must be "kv_both": the connector saves and loads')
    if vllm_config.speculative_config is not None:
        raise StartRefused("speculative decoding was not tested with Mooring's connector: turn it off")
    if not vllm_config.cache_config.enable_prefix_caching:
        raise StartRefused("prefix caching is off, and pinned blocks are found through it")
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        raise StartRefused(
            f"the model has {len(groups)} groups of KV cache (it mixes kinds of attention): Mooring's"
            " connector serves models with one"
        )
    spec = groups[0].kv_cache_spec
    if not isinstance(spec, FullAttentionSpec) or spec.sliding_window or spec.attention_chunk_size:
        raise StartRefused(
            f"the model's KV cache is a {type(spec).__name__}: Mooring's connector serves attention over"
            " all earlier tokens"
        )
