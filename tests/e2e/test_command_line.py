"""The commands as a newcomer meets them, things done wrong included."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from mooring.testing import TINY_WIDE_HEADS, ServerProcess, write_random_folder


def mooring(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mooring", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | environment,
        timeout=300,
        check=False,
    )


def test_help_teaches_the_commands() -> None:
    shown = mooring("--help").stdout
    assert "demo" in shown
    assert "serve" in shown
    assert "MOORING_API_KEY" in mooring("serve", "--help").stdout


def test_estimate_reproduces_the_vendors_calculator() -> None:
    asked = ["--in", "117965", "--out", "13107", "--identical", "99.5", "--calls", "10"]
    asked += ["--minutes", "1", "--model", "moonshot-v1-128k"]
    shown = mooring("estimate", *asked).stdout
    for figure in ("3.01 USD", "0.81 USD", "72.89 %"):
        assert figure in shown
    found = json.loads(mooring("estimate", *asked, "--json").stdout)
    assert (found["without_nano"], found["with_nano"]) == (3_014_650_000, 817_131_250)
    wrong = mooring("estimate", *asked, "--plan", "gold")
    assert wrong.returncode == 1
    assert "yuan-2024" in wrong.stderr


def test_vllm_args_prints_a_workers_command_line_and_what_fits(tmp_path: Path) -> None:
    model = str(write_random_folder(tmp_path / "model", TINY_WIDE_HEADS))
    asked = ["--model", model, "--tier", "/mnt/kv", "--context-tokens", "2048", "--kv-gib", "0.5"]
    run = mooring("vllm-args", *asked)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"vllm serve {model} ")
    assert "--kv-cache-memory-bytes 536870912" in run.stdout
    assert "bytes of KV a token: 1,024" in run.stderr  # 2 layers, keys and values of 64 floats
    assert "tokens on the device: 524,288, of which 522,224 can be pinned" in run.stderr
    words = json.loads(mooring("vllm-args", *asked, "--json").stdout)
    assert json.loads(words[-1])["kv_connector_extra_config"]["root"] == "/mnt/kv"


def test_a_cluster_without_workers_or_with_a_wrong_url_is_explained(tmp_path: Path) -> None:
    serve = ["serve", "--engine", "vllm", "--data-dir", str(tmp_path), "--port", "0"]
    run = mooring(*serve, "--model", str(tmp_path))
    assert run.returncode == 1
    assert "the URL of at least one (--worker)" in run.stderr
    run = mooring(*serve, "--worker", "gpu1:8000")
    assert run.returncode == 1
    assert "vllm.workers.0: must be like http://worker:8000" in run.stderr
    run = mooring(*serve, "--worker", "http://127.0.0.1:9")
    assert run.returncode == 1
    assert "(--model)" in run.stderr
    folder = write_random_folder(tmp_path / "model", TINY_WIDE_HEADS)
    run = mooring(*serve, "--worker", "http://127.0.0.1:9", "--model", str(folder))
    assert run.returncode == 1
    assert "no vLLM worker can be used: http://127.0.0.1:9 is down" in run.stderr


def test_demo_ends_with_the_comparison() -> None:
    run = mooring("demo", "--questions", "2")
    assert run.returncode == 0, run.stderr
    assert "random weights" not in run.stdout
    assert "answers that are right 2 of 2 2 of 2" in " ".join(run.stdout.replace("│", " ").split())
    for row in ("time to first token, median", "prompt tokens computed", "price, CNY"):
        assert row in run.stdout
    assert "1 begun minute(s) of storage" in " ".join(run.stdout.split())
    assert run.stderr == ""


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    run = mooring("serve", "--model", "/nowhere/model.gguf", "--data-dir", str(tmp_path), "--port", "0")
    assert run.returncode == 1
    assert "no model file at /nowhere/model.gguf" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_no_model_is_explained(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 1000)
    run = mooring("serve", "--model", str(bad), "--data-dir", str(tmp_path), "--port", "0")
    assert run.returncode == 1
    assert "cannot load" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unreachable_hub_is_explained(tmp_path: Path) -> None:
    run = mooring(
        *("serve", "--model", "hf:owner/repo", "--data-dir", str(tmp_path), "--port", "0"),
        HF_HUB_OFFLINE="1",
    )
    assert run.returncode == 1
    assert "cannot download hf:owner/repo" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_door_is_refused(host: str, tmp_path: Path) -> None:
    run = mooring("serve", "--host", host, "--port", "0", "--data-dir", str(tmp_path))
    assert run.returncode == 1
    assert "MOORING_API_KEY" in run.stderr
    assert "mooring key create" in run.stderr


def test_a_taken_port_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = mooring("serve", "--port", str(port), "--data-dir", str(tmp_path))
    assert run.returncode == 1
    assert "cannot listen" in run.stderr


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_server_in_order(
    stop_signal: signal.Signals, tmp_path: Path, tiny_model: Path
) -> None:
    server = ServerProcess(tmp_path, tiny_model)
    server.process.send_signal(stop_signal)
    assert server.process.wait(60) == 0
    printed = server.log_path.read_text()
    assert "Stopped; caches are kept." in printed
    assert "Traceback" not in printed


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    config = tmp_path / "mooring.toml"
    config.write_text("[engine]\ncels = 5\n")
    run = mooring("serve", "--config", str(config))
    assert run.returncode == 1
    assert "engine.cels" in run.stderr


def test_a_data_directory_serves_one_at_a_time(tmp_path: Path, tiny_model: Path) -> None:
    with ServerProcess(tmp_path, tiny_model):
        run = mooring("serve", "--data-dir", str(tmp_path), "--port", "0")
    assert run.returncode == 1
    assert "another Mooring works in" in run.stderr


def test_a_key_is_asked_for_when_one_is_set(tmp_path: Path, tiny_model: Path) -> None:
    config = '[server]\napi_key = "correct-horse"'
    with ServerProcess(tmp_path, tiny_model, config) as server:
        paths = ["/v1/models", "/v1/caching", "/v1/caching/cache-00000000000000000000"]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}):
            for path in paths:
                reply = httpx.get(server.url + path, headers=headers)
                assert reply.status_code == 401
                assert reply.json()["error"]["type"] in (
                    "invalid_authentication_error",
                    "incorrect_api_key_error",
                )
        right = {"Authorization": "Bearer correct-horse"}
        assert httpx.get(f"{server.url}/v1/models", headers=right).status_code == 200
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
