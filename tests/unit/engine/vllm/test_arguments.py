"""How a worker is started."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.vllm.arguments import (
    MIDDLEWARE,
    WorkerPlan,
    budget,
    worker_arguments,
)


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_a_worker_has_the_connector_the_middleware_and_never_recomputes_in_silence() -> None:
    arguments = worker_arguments(WorkerPlan("models/m", Path("/tier"), 32_768, kv_bytes=1 << 30))
    assert arguments[:3] == ["vllm", "serve", "models/m"]
    transfer = json.loads(option(arguments, "--kv-transfer-config"))
    assert transfer["kv_load_failure_policy"] == "fail"
    assert transfer["kv_connector_extra_config"]["root"] == "/tier"
    assert option(arguments, "--middleware") == MIDDLEWARE
    assert option(arguments, "--kv-cache-memory-bytes") == str(1 << 30)
    assert option(arguments, "--structured-outputs-config.backend") == "guidance"
    assert "--enable-prompt-tokens-details" in arguments
    assert "--block-size" not in arguments


def test_a_model_on_the_hub_is_pinned_to_its_commit_which_stands_for_its_weights() -> None:
    arguments = worker_arguments(WorkerPlan("some/model", Path("/tier"), 4096, revision="abc123"))
    transfer = json.loads(option(arguments, "--kv-transfer-config"))
    assert option(arguments, "--revision") == "abc123"
    assert transfer["kv_connector_extra_config"]["weights"] == "some/model@abc123"


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 20), st.integers(64, 1 << 20), st.integers(1, 256))
def test_a_request_of_full_length_always_fits_beside_what_is_pinned(
    kv_bytes: int, token_bytes: int, context_tokens: int, block_tokens: int
) -> None:
    fits = budget(kv_bytes, token_bytes, context_tokens, block_tokens)
    assert fits.tokens * token_bytes <= kv_bytes
    assert fits.pinned_tokens == 0 or fits.tokens - fits.pinned_tokens >= context_tokens
