"""The peer: llama.cpp's own HTTP server out of the `xllamacpp` wheel, in an environment of its own."""

import json
import re
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from harness.answer import Answer, read_events
from harness.models import CACHE
from harness.processes import cpu_seconds

PACKAGE = "xllamacpp==2026.10.11549"
_SCRIPT = Path(__file__).with_name("peer_server.py")


@dataclass(frozen=True)
class PeerSettings:
    """llama.cpp's settings under its own names; the rest stays as it is by default."""

    slots: int
    n_ctx: int
    """Cells, all slots together."""
    threads: int
    unified: bool = True
    """One KV buffer for all slots; else each has its share of `n_ctx`."""
    flash_attention: str = "off"
    """`off`, as Mooring's default on the CPU, `on`, or `auto`, the peer's own default."""
    cache_ram_mib: int = 0
    """Budget of its prompt cache in RAM; 0 is none."""
    cache_idle_slots: bool = False
    """Move idle slots' prompts to the RAM cache when another request comes, and clear the slots."""


class PeerUnavailable(Exception):
    """The peer cannot be installed or does not start; the message says what it printed."""


def peer_python(directory: Path | None = None) -> Path:
    """The interpreter of the peer's virtual environment, which is made if it is not there."""
    directory = directory or CACHE / "peer"
    python = directory / "bin" / "python"
    wanted = directory / PACKAGE
    if not wanted.exists():
        print(f"Installing the peer, {PACKAGE}, into {directory}")
        venv.create(directory, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", PACKAGE]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode != 0:
            raise PeerUnavailable(f"pip install {PACKAGE} failed:\n{done.stderr}")
        wanted.touch()
    return python


class Peer:
    """A running server; a context manager that stops it."""

    name = "llama.cpp"

    def __init__(self, python: Path, model: Path, peer: PeerSettings, log: Path) -> None:
        self.settings = peer
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                [python, _SCRIPT, str(model), json.dumps(asdict(peer))],
                stdin=subprocess.PIPE,  # it ends when this pipe closes, however we end
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        if not url.startswith("http://"):
            raise PeerUnavailable(f"the peer ended:\n{log.read_text(errors='replace')[-2000:]}")
        self.http = httpx.Client(
            base_url=url, timeout=1800, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    @property
    def cpu_s(self) -> float:
        return cpu_seconds(self._process.pid)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens evaluated so far, as its /metrics say."""
        metrics = self.http.get("/metrics").raise_for_status().text
        found = re.search(r"^llamacpp:prompt_tokens_total (\S+)", metrics, re.MULTILINE)
        assert found is not None, metrics
        return round(float(found[1]))

    @property
    def cells(self) -> int:
        """Tokens in all slots: a cell each, for slots share none."""
        slots = self.http.get("/slots").raise_for_status().json()
        return sum(slot.get("n_prompt_tokens", 0) for slot in slots)

    def ask(self, prompt: Sequence[int], *, tokens: int, slot: int | None = None) -> Answer:
        """Stream an answer of `tokens` tokens to a prompt of token ids; greedy, at its cheapest."""
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": tokens,
            "stream": True,
            "cache_prompt": True,
            "return_tokens": True,
            "samplers": ["top_k"],
            "top_k": 1,
        }
        if slot is not None:
            body["id_slot"] = slot
        begun = time.perf_counter()
        with self.http.stream("POST", "/completion", json=body) as reply:
            reply.raise_for_status()
            events = read_events(reply.iter_lines(), begun)
        last = events[-1].body["timings"]
        drawn = [token for event in events for token in event.body.get("tokens", [])]
        return Answer(
            first_token_s=events[0].at_s,
            last_token_s=events[-1].at_s,
            prompt_tokens=last["prompt_n"] + last["cache_n"],
            cached_tokens=last["cache_n"],
            tokens=last["predicted_n"],
            text="".join(event.body["content"] for event in events),
            token_ids=tuple(drawn),
        )


if __name__ == "__main__":
    print(peer_python(Path(sys.argv[1]) if sys.argv[1:] else None))
