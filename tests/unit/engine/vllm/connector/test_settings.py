"""The connector's settings: what is wrong is named."""

import pytest

from mooring.engine.vllm.connector.settings import BadSettings, open_store, read_settings

MOONCAKE = {"master": "10.0.0.1:50051", "admin": "10.0.0.1:9003"}


def test_files_need_a_folder_only(tmp_path):
    settings = read_settings({"tier": "files", "root": str(tmp_path)})
    assert settings.strict
    assert open_store(settings, "f" * 32).contexts() == set()


def test_mooncake_has_two_replicas_unless_told_otherwise():
    assert read_settings({"tier": "mooncake", "mooncake": MOONCAKE}).mooncake.replicas == 2


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({}, "tier"),
        ({"tier": "disk"}, "tier"),
        ({"tier": "files"}, "root"),
        ({"tier": "files", "root": "/kv", "rot": "/kv"}, "rot"),
        ({"tier": "files", "root": "/kv", "pin_blocks": "many"}, "pin_blocks"),
        ({"tier": "files", "root": "/kv", "mooncake": MOONCAKE}, "mooncake"),
        ({"tier": "mooncake"}, "mooncake"),
        ({"tier": "mooncake", "mooncake": {"master": "a:1"}}, "mooncake.admin"),
        ({"tier": "mooncake", "mooncake": MOONCAKE | {"replica": 3}}, "mooncake.replica"),
    ],
)
def test_wrong_setting_is_named(extra, key):
    with pytest.raises(BadSettings, match=f"^{key}: "):
        read_settings(extra)
