"""Memory of a real `mooring serve` that answers one prompt of 32k tokens, on the bundled model.

    python benchmarks/long_context.py     # about 5 minutes on 2 cores

The peak is the kernel's: the most that was ever resident (VmHWM) of the server and its children.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mooring.app import bundled
from mooring.engine.llamacpp.binding import LIBRARY_VERSION, Model
from mooring.testing import ServerProcess, bundled_model

CONTEXT = 32_768
PROMPT = 32_600
SETTINGS = {
    "off, f16, batches of 512": {"flash_attention": False, "kv_type": "f16", "batch_tokens": 512},
    "off, f16, batches of 128": {"flash_attention": False, "kv_type": "f16", "batch_tokens": 128},
    "on, f16, batches of 512": {"flash_attention": True, "kv_type": "f16", "batch_tokens": 512},
    "on, q8_0, batches of 512": {"flash_attention": True, "kv_type": "q8_0", "batch_tokens": 512},
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = parse_arguments()
    if arguments.one is not None:
        print(json.dumps(measure(SETTINGS[arguments.one])))
        return
    rows = {}
    for name in track(SETTINGS, "32k tokens", transient=True):
        command = [*shlex.split(arguments.under), sys.executable, __file__, "--one", name]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows[name] = json.loads(run.stdout)
    report = {
        "benchmark": "long_context",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "llama_cpp_python": LIBRARY_VERSION,
        "context_tokens": CONTEXT,
        "settings": rows,
    }
    Console().print(table(rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "long_context.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, arguments.out / "long_context.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--under", default="", help="a command to run each setting under: taskset -c 0,1"
    )
    parser.add_argument("--one", choices=SETTINGS, help="this setting only, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(setting: dict) -> dict:
    """The peak of a fresh server, before and after the prompt."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in setting.items()]
    config = "\n".join(["[engine]", f"context_tokens = {CONTEXT}", f"cells = {CONTEXT}", *lines])
    body = {"model": "moonshot-v1", "messages": [{"role": "user", "content": prompt()}]}
    body |= {"max_tokens": 8, "temperature": 0}
    with (
        tempfile.TemporaryDirectory(prefix="mooring-32k-") as directory,
        ServerProcess(Path(directory), config=config) as server,
    ):
        peak = Peak(server.process.pid)
        idle = peak.bytes
        begun = time.perf_counter()
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=None)
        seconds = time.perf_counter() - begun
        usage = reply.raise_for_status().json()["usage"]
        peak.stop()
    assert usage["prompt_tokens"] > PROMPT, usage
    return {"idle_bytes": idle, "peak_bytes": peak.bytes, "seconds": seconds, "usage": usage}


class Peak:
    """The peaks of a process and its descendants, added up: an upper bound of what they had at once."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._peaks: dict[int, int] = {}
        self._stopped = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def bytes(self) -> int:
        return sum(self._peaks.values())

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.5):
            self._look()
        self._look()

    def _look(self) -> None:
        waiting = [self._process]
        while waiting:
            process = waiting.pop()
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peaks[process] = int(line.split()[1]) * 1024
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def prompt() -> str:
    """Text of `PROMPT` tokens, or one or two more."""
    model = Model(bundled_model())
    text = bundled("manual.md").read_text("utf-8") * 40
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        if len(model.tokenize(text[:middle], add_bos=False, control=False)) < PROMPT:
            low = middle + 1
        else:
            high = middle
    model.close()
    assert low < len(text), "the text is too short"
    return text[:low]


def table(rows: dict[str, dict]) -> Table:
    shown = Table(title=f"A prompt of {PROMPT:,} tokens: flash attention, KV type, batch")
    shown.add_column("")
    for column in ("peak MB", "idle MB", "seconds", "prompt tokens"):
        shown.add_column(column, justify="right")
    for name, row in rows.items():
        peak, idle = (f"{row[key] / 1e6:,.0f}" for key in ("peak_bytes", "idle_bytes"))
        shown.add_row(name, peak, idle, f"{row['seconds']:,.0f}", f"{row['usage']['prompt_tokens']:,}")
    return shown


def plot(rows: dict[str, dict], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 2.8))
    bars = axes.barh(list(rows), [row["peak_bytes"] / 1e6 for row in rows.values()], color="#2a6f97")
    axes.bar_label(
        bars, [f"{r['peak_bytes'] / 1e6:,.0f} MB, {r['seconds']:,.0f} s" for r in rows.values()]
    )
    axes.margins(x=0.3)
    axes.invert_yaxis()
    axes.set_xlabel("peak memory of the server, MB")
    axes.set_title(f"One prompt of {PROMPT:,} tokens, bundled model")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
