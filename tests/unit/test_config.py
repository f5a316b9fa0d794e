"""What an operator can set, and what stops the start."""

from pathlib import Path

import pytest

from mooring.config import ALIASES, Config, load_config
from mooring.core.errors import StartRefused
from mooring.registry.database import open_database


def write(tmp_path, text):
    path = tmp_path / "mooring.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(path=None, **overrides):
    with pytest.raises(StartRefused) as caught:
        load_config(path, overrides)
    return caught.value.message


def test_config_without_a_file_is_the_default():
    assert load_config() == Config()


def test_config_by_default_listens_on_loopback_under_moonshots_names():
    config = load_config()
    assert config.server.host == "127.0.0.1"
    assert config.model.aliases == ALIASES


def test_config_takes_the_files_values(tmp_path):
    path = write(tmp_path, '[server]\nport = 9000\n[engine]\nkv_type = "q8_0"\nthreads = 3\n')
    config = load_config(path)
    assert (config.server.port, config.engine.kv_type, config.engine.threads) == (9000, "q8_0", 3)


def test_config_prefers_overrides_to_the_file(tmp_path):
    path = write(tmp_path, '[server]\nport = 9000\ndata_dir = "/somewhere"\n')
    config = load_config(path, {"server": {"port": 9001}})
    assert config.server.port == 9001
    assert config.server.data_dir == Path("/somewhere")


def test_config_overrides_a_part_that_the_file_does_not_have(tmp_path):
    config = load_config(write(tmp_path, "[server]\nport = 9000\n"), {"caching": {"default_ttl_s": 5}})
    assert (config.server.port, config.caching.default_ttl_s) == (9000, 5)


def test_config_ignores_overrides_that_are_none(tmp_path):
    path = write(tmp_path, "[server]\nport = 9000\n")
    assert load_config(path, {"server": {"port": None}}).server.port == 9000


def test_config_names_an_unknown_key(tmp_path):
    assert "server.prot:" in refusal(write(tmp_path, "[server]\nprot = 9000\n"))


def test_config_names_an_unknown_part(tmp_path):
    assert "sever:" in refusal(write(tmp_path, "[sever]\nport = 9000\n"))


def test_config_names_an_unknown_override():
    assert "engine.cellls:" in refusal(engine={"cellls": 512})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[server]\nport = 65536\n", "server.port:"),
        ('[server]\nport = "many"\n', "server.port:"),
        ('[server]\napi_key = "short"\n', "server.api_key:"),
        ('[server]\napi_key = ""\n', "server.api_key:"),
        ('[server]\napi_key = "1234567"\n', "server.api_key:"),
        ('[server]\napi_key = "with a space"\n', "server.api_key:"),
        ('[server]\napi_key = "trailing\\n"\n', "server.api_key:"),
        ('[server]\napi_key = "trailing1\\n"\n', "server.api_key:"),
        ('[server]\napi_key = "\\ttabulated"\n', "server.api_key:"),
        ('[server]\napi_key = "schlüssel-für-alle"\n', "server.api_key:"),
        ('[model]\naliases = ["a", 3]\n', "model.aliases.1:"),
        ('[engine]\nkv_type = "q2"\n', "engine.kv_type:"),
        ("[engine]\nsequences = 257\n", "engine.sequences:"),
        ("[kvstore]\nram_bytes = -1\n", "kvstore.ram_bytes:"),
        ("[kvstore]\ndisk_bytes = -1\n", "kvstore.disk_bytes:"),
        ('[kvstore]\npolicy = "fifo"\n', "kvstore.policy:"),
        ("[caching]\ndefault_ttl_s = 0\n", "caching.default_ttl_s:"),
        ("[caching]\nsweep_interval_s = 0\n", "caching.sweep_interval_s:"),
        ("[chat]\ndefault_max_tokens = 0.5\n", "chat.default_max_tokens:"),
        ("server = 3\n", "server:"),
    ],
)
def test_config_names_the_key_of_a_bad_value(tmp_path, text, key):
    assert key in refusal(write(tmp_path, text))


def test_config_names_every_fault_at_once(tmp_path):
    message = refusal(write(tmp_path, "[server]\nport = -1\n[engine]\ncells = 1\n"))
    assert "server.port:" in message
    assert "engine.cells:" in message


def test_config_does_not_repeat_a_bad_key_in_its_message(tmp_path):
    assert "hunter2" not in refusal(write(tmp_path, '[server]\napi_key = "hunter2"\n'))


@pytest.mark.parametrize("content", [b"[server\n", b"port 9000\n", b'[server]\nhost = "\xff"\n'])
def test_config_names_a_file_it_cannot_read(tmp_path, content):
    path = tmp_path / "mooring.toml"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_config_names_a_file_that_is_not_there(tmp_path):
    assert str(tmp_path / "none.toml") in refusal(tmp_path / "none.toml")


@pytest.mark.parametrize("key", ["12345678", "!~#{}[]'\"", "sk-" + "a" * 200])
def test_config_takes_a_key_of_eight_or_more_printable_characters(key):
    assert load_config(None, {"server": {"api_key": key}}).server.api_key == key


def test_config_cannot_be_changed_once_loaded():
    config = load_config()
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1


@pytest.mark.parametrize(
    "url", ["postgresql://u:secret@db/registry", "postgres://db/registry", "postgresql+psycopg://db/r"]
)
def test_a_registry_may_be_in_postgresql_and_its_password_is_not_shown(url):
    config = load_config(None, {"registry": {"url": url}})
    assert config.registry.url.get_secret_value() == url
    assert "secret" not in repr(config)


@pytest.mark.parametrize("url", ["", "mysql://u:secret@db/registry", "secret", "sqlite:///secret"])
def test_any_other_registry_is_refused_without_showing_it(url):
    with pytest.raises(StartRefused, match=r"registry\.url: .*must be like postgresql://") as caught:
        load_config(None, {"registry": {"url": url}})
    assert "secret" not in str(caught.value)


def test_a_registry_url_that_cannot_be_read_is_not_shown(tmp_path):
    config = load_config(None, {"registry": {"url": "postgresql://u:secret@db:port/registry"}})
    with pytest.raises(StartRefused, match=r"registry\.url") as caught:
        open_database(config.registry, tmp_path)
    assert "secret" not in str(caught.value)
