"""What the connector refuses at start, and that vLLM has the hooks that it relies on."""

import json
import shutil
import subprocess

import pytest
from vllm_server import HANG_S, VllmServer, environment, vllm_python

MIXED_ATTENTION = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "vocab_size": 3000,
}


PROGRAM = """
import json, sys, vllm
from mooring.engine.vllm.connector import MooringConnector, hooks
ours = [name for name in sys.modules if name.startswith("mooring.")]
print(json.dumps([hooks.differences(), hooks.is_supported(vllm.__version__), ours]))
"""


@pytest.fixture(scope="module")
def found():
    """Of the installed vLLM: differences of its hooks, whether its version is supported, our modules."""
    command = [vllm_python(), "-c", PROGRAM]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_vllm_has_the_hooks_that_the_connector_relies_on(found):
    assert found[0] == []


def test_vllm_is_of_a_supported_version(found):
    assert found[1]


def test_connector_needs_few_of_our_modules(found):
    parts = ("mooring.engine.vllm", "mooring.kvstore", "mooring.core")
    assert {name for name in found[2] if not name.startswith(parts)} == {
        "mooring.engine",
        "mooring.engine.weights",
    }


def refusal(model, tmp_path, settings, *options):
    """What a start that must not succeed prints."""
    log = tmp_path / "vllm.log"
    with VllmServer(model, log, settings, *options, wait=False) as server:
        assert server.process.wait(HANG_S) != 0
        return server.printed()


def test_tensor_parallelism_is_refused(model_folder, tmp_path):
    files = {"tier": "files", "root": str(tmp_path / "shared")}
    printed = refusal(
        model_folder, tmp_path, files, "--tensor-parallel-size", "2", "--load-format", "dummy"
    )
    assert "a worker has to be one device here, and this one spans 2" in printed


def test_model_that_mixes_kinds_of_attention_is_refused(model_folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(model_folder, mixed)
    (mixed / "config.json").write_text(json.dumps(MIXED_ATTENTION))
    files = {"tier": "files", "root": str(tmp_path / "shared")}
    printed = refusal(mixed, tmp_path, files, "--load-format", "dummy")
    assert "groups of KV cache (it mixes kinds of attention)" in printed
