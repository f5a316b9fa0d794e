"""A real vLLM worker on this machine's CPU, in a process of its own, for tests and benchmarks."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import mooring
from mooring.engine.vllm.arguments import WorkerPlan, worker_arguments
from mooring.testing.port import free_port

BLOCK_TOKENS = 32
_NICENESS = 15
_CPU = ["--dtype", "float32", "--enforce-eager", "--no-enable-log-requests"]
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every worker would take the same core
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",  # compiling a kernel takes longer than a tiny model's tests
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Served:
    """A model that workers serve; `ServerProcess` takes it in place of a GGUF."""

    folder: Path
    workers: tuple[str, ...]
    """URLs."""


class VllmWorker:
    """Runs from construction to `stop` or `kill`; `wait` says when it serves."""

    def __init__(
        self,
        venv: Path,
        model: Path,
        tier: Path,
        log: Path,
        *,
        context_tokens: int = 2048,
        blocks: int = 160,
        sequences: int = 4,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start one on a loopback port, a free one unless it is said, with so many KV blocks."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = log
        plan = WorkerPlan(
            str(model), tier, context_tokens, None, BLOCK_TOKENS, "127.0.0.1", self.port, "tiny"
        )
        # vLLM's build for the CPU has no command of its own that works.
        _vllm, _serve, folder, *arguments = worker_arguments(plan)
        module = [str(venv / "bin/python"), "-m", "vllm.entrypoints.openai.api_server"]
        size = ["--num-gpu-blocks-override", str(blocks), "--max-num-seqs", str(sequences)]
        source = str(Path(mooring.__file__).parents[1])
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603
                [*module, "--model", folder, *arguments, *_CPU, *size],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | _ENVIRONMENT | {"PYTHONPATH": source} | dict(environment or {}),
                start_new_session=True,  # its engine is a child, which is killed with it
            )
        give_way(self.process.pid)

    def wait(self) -> Self:
        """Back when it serves.

        Raises:
            RuntimeError: it ended instead; the message is the end of what it printed.
        """
        while self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health"):  # noqa: S310 - our own http URL
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"the worker ended:\n{self.log_path.read_text(errors='replace')[-4000:]}")

    def freeze(self) -> None:
        """Nothing comes from it any more; `kill` ends it all the same."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """End all its processes as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, with_signal: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, with_signal)
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()


def give_way(pid: int) -> None:
    """Let all others go before a process that has just begun a session, and its children to come.

    vLLM's processes keep their cores busy also while they wait for each other. On two cores, with Linux
    grouping processes by session, whoever asked them was seen not to run until the answer was complete.
    """
    with suppress(OSError):  # it has ended already, or this system has no such groups
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICENESS))
