"""A real `mooring serve` in a process of its own, for tests that kill it and benchmarks that time it."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType

from mooring.testing.vllm_worker import Served

_BASE_URL = re.compile(r"base URL\s+(http://\S+)/v1")
_ENGINE = re.compile(r"engine process ready pid=(\d+)")


class ServerProcess:
    """Runs from construction to `stop` or `kill`; a context manager that stops it."""

    def __init__(self, data_dir: Path, model: Path | Served | None = None, config: str = "") -> None:
        """Start on a free loopback port and wait until it serves; `config` is TOML.

        Raises:
            RuntimeError: it ended instead; the message is what it printed.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        settings = data_dir / "test-config.toml"
        settings.write_text(config, "utf-8")
        command = [sys.executable, "-m", "mooring", "serve", "--port", "0"]
        command += ["--data-dir", str(data_dir), "--config", str(settings)]
        match model:
            case Served(folder, workers):
                command += ["--engine", "vllm", "--model", str(folder)]
                command += [word for url in workers for word in ("--worker", url)]
            case Path():
                command += ["--model", str(model)]
        self.log_path = data_dir / "server.log"
        with self.log_path.open("ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)  # noqa: S603
        self.url = self._wait_for_url(start)
        """`http://127.0.0.1:<port>`, without `/v1`."""

    def _wait_for_url(self, start: int) -> str:
        while True:
            ended = self.process.poll() is not None
            with self.log_path.open("rb") as log:
                log.seek(start)
                printed = log.read().decode(errors="replace")
            if found := _BASE_URL.search(printed):
                return found[1]
            if ended:
                raise RuntimeError(f"the server ended:\n{printed}")
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue

    @property
    def engine_pid(self) -> int:
        """The process of its engine: the last one that became ready, as its log has it."""
        return int(_ENGINE.findall(self.log_path.read_text(errors="replace"))[-1])

    def metric(self, name: str, **labels: str) -> float:
        """A counter's or gauge's value on /metrics; 0 when it has not been touched."""
        with urllib.request.urlopen(f"{self.url}/metrics") as reply:  # noqa: S310 - our own http URL
            lines = reply.read().decode().splitlines()
        wanted = name + (
            "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        )
        for line in lines:
            if line.startswith(wanted + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def stop(self) -> None:
        """End it in order, as a service manager would."""
        self.process.terminate()
        self.process.wait()

    def kill(self) -> None:
        """End it as a power cut would, as far as the process is concerned."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop()
