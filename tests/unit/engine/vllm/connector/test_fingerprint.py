"""Whatever changes KV bytes changes the fingerprint."""

from types import SimpleNamespace

import pytest

from mooring.engine.vllm.connector.fingerprint import fingerprint
from mooring.engine.vllm.connector.refusals import StartRefused


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(2):
        (folder / f"model-{number}.safetensors").write_bytes(bytes([number]) * 1000)
    return folder


def found(folder, *, versions=("vllm=0.32.0",), weights=None, **other):
    fields = {
        "model": str(folder),
        "config": "{}",
        "dtype": "bfloat16",
        "cache_dtype": "auto",
        "quantization": None,
        "block_size": 16,
        "spec": "FullAttentionSpec(heads=2)",
        "layout": "NHD",
    } | other
    one = SimpleNamespace(**fields)
    model = SimpleNamespace(
        model=one.model,
        dtype=one.dtype,
        quantization=one.quantization,
        hf_config=SimpleNamespace(to_json_string=lambda: one.config),
    )
    cache = SimpleNamespace(cache_dtype=one.cache_dtype, block_size=one.block_size)
    groups = [SimpleNamespace(kv_cache_spec=one.spec)]
    return fingerprint(
        SimpleNamespace(model_config=model, cache_config=cache),
        SimpleNamespace(kv_cache_groups=groups, kv_cache_layout=one.layout),
        list(versions),
        weights,
    )


def test_equal_engines_have_equal_fingerprints(folder):
    assert found(folder) == found(folder)
    assert len(found(folder)) == 32


@pytest.mark.parametrize(
    "other",
    [
        {"versions": ("vllm=0.32.1",)},
        {"config": '{"rope_theta": 1}'},
        {"dtype": "float16"},
        {"cache_dtype": "fp8"},
        {"quantization": "awq"},
        {"block_size": 32},
        {"spec": "FullAttentionSpec(heads=4)"},
        {"layout": "HND"},
        {"weights": "some name"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_changes_bytes_changes_it(folder, other):
    assert found(folder, **other) != found(folder)


def test_other_weights_of_the_same_size_change_it(folder):
    before = found(folder)
    (folder / "model-1.safetensors").write_bytes(bytes([9]) * 1000)
    assert found(folder) != before


def test_same_weights_elsewhere_do_not(folder, tmp_path):
    before = found(folder)
    assert found(folder.rename(tmp_path / "elsewhere")) == before


def test_model_without_files_needs_a_name(tmp_path):
    with pytest.raises(StartRefused, match="set weights"):
        found(tmp_path / "Qwen" / "Qwen2.5-0.5B-Instruct")
    assert found(tmp_path / "Qwen", weights="qwen 1") != found(tmp_path / "Qwen", weights="qwen 2")
