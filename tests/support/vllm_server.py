"""A real vLLM with the connector in a process of its own, and what tests say to it."""

import json
import os
import random
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mooring
from mooring.core.prefix import Prefix
from mooring.testing.port import free_port
from mooring.testing.vllm_worker import give_way

HANG_S = 600
BLOCK = 32
"""Tokens."""
MODEL_TOKENS = 1024
POOL_BLOCKS = 100
RESERVED_BLOCKS = MODEL_TOKENS // BLOCK + 1
PIN_BUDGET = POOL_BLOCKS - 1 - RESERVED_BLOCKS
"""What is left for pins beside one request of the greatest length and the pool's placeholder."""


def vllm_python() -> Path:
    """The interpreter that has vLLM; a test that asks is skipped where there is none."""
    folder = os.environ.get("MOORING_VLLM_VENV")
    if not folder:
        pytest.skip("MOORING_VLLM_VENV names no environment made by tools/vllm_cpu/install.sh")
    return Path(folder) / "bin" / "python"


def environment() -> dict[str, str]:
    """The tests' own Mooring, and nothing from outside."""
    return os.environ | {
        "PYTHONPATH": str(Path(mooring.__file__).parents[1]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",  # nothing is compiled, also not at the first odd request
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
    }


@dataclass
class Reply:
    """What came of a request."""

    status: int
    body: dict[str, Any] = field(repr=False)

    @property
    def report(self) -> dict[str, Any]:
        return self.body["kv_transfer_params"]["mooring"]

    @property
    def error(self) -> str | None:
        return self.report.get("error", {}).get("code")

    @property
    def cached(self) -> int:
        """Prompt tokens that were not computed."""
        details = self.body["usage"]["prompt_tokens_details"]
        return (details or {}).get("cached_tokens") or 0

    @property
    def text(self) -> str:
        return self.body["choices"][0]["text"]


class VllmServer:
    """Runs from construction to `stop` or `kill`; a context manager that stops it."""

    def __init__(self, model: Path, log: Path, settings: dict[str, Any], *more: str, wait: bool = True):
        self.log = log
        self._arguments = (model, settings, more)
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        """Again after `kill`, too."""
        model, settings, more = self._arguments
        self.port = free_port()
        transfer = {
            "kv_connector": "MooringConnector",
            "kv_connector_module_path": "mooring.engine.vllm.connector",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "fail",
            "kv_connector_extra_config": settings,
        }
        options = {
            "--model": model,
            "--served-model-name": "tiny",
            "--host": "127.0.0.1",
            "--port": self.port,
            "--max-model-len": MODEL_TOKENS,
            "--dtype": "float32",
            "--block-size": BLOCK,
            "--num-gpu-blocks-override": POOL_BLOCKS,
            "--max-num-seqs": 4,
            "--kv-transfer-config": json.dumps(transfer),
        }
        command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        command += ["--enable-prompt-tokens-details"]
        command += [str(word) for option in options.items() for word in option]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [*command, *more],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment(),
                start_new_session=True,
            )
        give_way(self.process.pid)
        if wait:
            self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.printed()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(self.printed())

    def printed(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def complete(
        self,
        prompt: list[int] | tuple[int, ...],
        order: dict[str, Any] | None = None,
        salt: str | None = None,
        max_tokens: int = 1,
        **more: Any,
    ) -> Reply:
        body = {
            "model": "tiny",
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
        } | more
        if salt is not None:
            body["cache_salt"] = salt
        if order is not None:
            body["kv_transfer_params"] = {"mooring": order}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=HANG_S) as reply:
                return Reply(reply.status, json.load(reply))
        except urllib.error.HTTPError as error:
            return Reply(error.code, {"error": error.read().decode(errors="replace")})

    def keep(self, prefix: Prefix, lease_s: float = 600) -> Reply:
        order = {"keep": prefix.id, "tokens": len(prefix), "lease_s": lease_s}
        return self.complete(prefix.tokens, order, prefix.scope)

    def keep_durably(self, prefix: Prefix, lease_s: float = 600) -> Reply:
        """As a client of the connector waits for durability: by asking again."""
        end = time.monotonic() + HANG_S
        while time.monotonic() < end:
            reply = self.keep(prefix, lease_s)
            assert reply.status == 200, reply
            if reply.report["durable"]:
                return reply
            time.sleep(0.05)
        raise AssertionError("it never became durable")

    def use(self, prefix: Prefix, *rest: int, lease_s: float = 600, **more: Any) -> Reply:
        order = {"use": prefix.id, "tokens": len(prefix), "lease_s": lease_s}
        return self.complete((*prefix.tokens, *rest), order, prefix.scope, **more)

    def order(self, **order: Any) -> Reply:
        return self.complete([5], order)

    def stat(self) -> dict[str, Any]:
        return self.order(stat=True).report

    def wait_until_saved(self) -> None:
        """Not asked without a pause: each question is a step of the engine, which has to save."""
        end = time.monotonic() + HANG_S
        while self.stat()["saving"]:
            assert time.monotonic() < end
            time.sleep(0.1)

    def thrash(self) -> None:
        """Fill the pool with other things, so that whatever is not pinned is evicted."""
        for _ in range(POOL_BLOCKS * BLOCK // 900 + 1):
            assert self.complete(tokens(900, random.getrandbits(40))).status == 200

    def kill(self) -> None:
        """All of its processes at once, as when a machine is lost."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.kill()

    def __enter__(self) -> "VllmServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


def tokens(count: int, seed: int) -> tuple[int, ...]:
    """Ordinary tokens that look like nothing else."""
    numbers = random.Random(seed)
    return tuple(numbers.randrange(5, 1000) for _ in range(count))


def prefix(count: int, seed: int, scope: str = "tenant-a") -> Prefix:
    return Prefix(scope, tokens(count, seed))
