"""Time to first token of one question about a long text: uncached, from each tier, and the floor.

    python benchmarks/ttft.py            # 387M-shaped model, 4,096 tokens: about 8 minutes on 2 cores

Everything but the floor goes through a real `mooring serve` over HTTP: JSON in, chat template,
tokenisation of the whole prompt, look-up, restore, prefill of the question, first token out as SSE.
The floor is raw llama-cpp-python in this process, with the prefix already in its sequence: one
`llama_decode` of the question's tokens and the argmax of its logits, nothing else. Floor, resident,
RAM and disk are measured in turn, so that a drifting machine drifts for all of them.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import matplotlib.pyplot as plt
import numpy as np
from llama_cpp import llama_cpp as lib
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from mooring.app import bundled
from mooring.engine.llamacpp.binding import LIBRARY_VERSION, Model
from mooring.engine.prompt import Prompter
from mooring.engine.template import ChatTemplate
from mooring.testing import DEMO, HALF, ServerProcess, write_random_model

SHAPES = {"half": HALF, "demo": DEMO}
QUESTION = {
    "role": "user",
    "content": "Which error code means that the brake lining is worn to its limit?",
}
OTHER = {"model": "moonshot-v1", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Series:
    """One row of the table."""

    name: str
    seconds: list[float]
    prompt_tokens_evaluated: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Floor:
    """Raw llama-cpp-python, its low-level API only."""

    def __init__(self, model_path: Path, prompt: list[int], prefix_tokens: int) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(model_path).encode(), params)
        context = lib.llama_context_default_params()
        context.n_ctx = 2 * len(prompt)
        context.n_batch = context.n_ubatch = 512
        context.n_seq_max = 2
        context.n_threads = context.n_threads_batch = os.cpu_count() or 1
        context.flash_attn_type = 0
        context.kv_unified = True
        self._context = lib.llama_init_from_model(self._model, context)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(512, 0, 1)
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self._question = prompt[prefix_tokens:]
        self._prefix_tokens = prefix_tokens
        chunks = range(0, prefix_tokens, 512)
        for start in track(chunks, "Prefilling the floor", transient=True):
            self._decode(prompt[start : min(start + 512, prefix_tokens)], start, 0)

    def measure(self) -> float:
        """Seconds from the question's tokens to the first token of the answer."""
        lib.llama_memory_seq_cp(self._memory, 0, 1, 0, -1)
        begun = time.perf_counter()
        self._decode(self._question, self._prefix_tokens, 1)
        logits = lib.llama_get_logits_ith(self._context, len(self._question) - 1)
        int(np.argmax(np.ctypeslib.as_array(logits, (self._vocabulary,))))
        seconds = time.perf_counter() - begun
        lib.llama_memory_seq_rm(self._memory, 1, -1, -1)
        return seconds

    def _decode(self, tokens: list[int], position: int, sequence: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row] = token
            batch.pos[row] = position + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = row == len(tokens) - 1
        assert lib.llama_decode(self._context, batch) == 0


class Client:
    """Asks the question and times the first token."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._http = httpx.Client(base_url=server.url, timeout=None)
        self.evaluated = 0

    def measure(self, first: dict) -> float:
        body = {
            "model": "moonshot-v1",
            "messages": [first, QUESTION],
            "temperature": 0,
            "max_tokens": 1,
            "stream": True,
        }
        usage = {}
        begun, seconds = time.perf_counter(), None
        with self._http.stream("POST", "/v1/chat/completions", json=body) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                drawn = choice["delta"].get("content") or choice["finish_reason"]
                if seconds is None and drawn:
                    seconds = time.perf_counter() - begun
                usage = choice.get("usage", usage)
        assert seconds is not None
        self.evaluated = usage["prompt_tokens"] - usage["cached_tokens"]
        return seconds

    def empty_the_buffer(self) -> None:
        """Another request takes the idle prefix out of the KV buffer."""
        self._http.post("/v1/chat/completions", json=OTHER).raise_for_status()

    def create_cache(self, system: dict) -> dict:
        body = {"model": "moonshot-v1", "messages": [system]}
        cache = self._http.post("/v1/caching", json=body).raise_for_status().json()
        while cache["status"] == "pending":
            time.sleep(0.05)
            cache = self._http.get(f"/v1/caching/{cache['id']}").json()
        assert cache["status"] == "ready", cache
        return {"role": "cache", "content": f"cache_id={cache['id']}"}


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mooring-ttft-") as directory:
        work = Path(directory)
        model_path = make_model(work, arguments.shape)
        system, prompt, prefix_tokens = make_prompt(model_path, arguments.tokens)
        series = measure(work, model_path, system, prompt, prefix_tokens, arguments, console)
    report = summarise(series, arguments, prefix_tokens, len(prompt) - prefix_tokens)
    console.print(table(series, report))
    write(series, report, arguments.out)
    console.print(f"written to {arguments.out}/ttft.json and ttft.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="half")
    parser.add_argument("--tokens", type=int, default=4096, help="length of the cached prefix")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--uncached-repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def make_model(work: Path, shape: str) -> Path:
    with Progress(transient=True) as bars:
        bar = bars.add_task("Writing the random-weight model")
        return write_random_model(
            work / f"{shape}.gguf",
            SHAPES[shape],
            on_tensor=lambda done, total: bars.update(bar, completed=done, total=total),
        )


def make_prompt(model_path: Path, wanted: int) -> tuple[dict, list[int], int]:
    """A system message whose stable prefix has `wanted` tokens, give or take a few."""
    from datetime import date

    from mooring.core.conversation import Conversation

    model = Model(model_path)
    template = ChatTemplate(model.metadata["tokenizer.chat_template"], bos="", eos="")
    prompter = Prompter(template, model, model.trained_context_tokens)
    text = bundled("manual.md").read_text("utf-8")

    def conversation(characters: int) -> Conversation:
        system = {"role": "system", "content": (text * (1 + characters // len(text)))[:characters]}
        return Conversation((system,), (), date.today())

    low, high = 1, 64 * wanted
    while high - low > 1:
        middle = (low + high) // 2
        if len(prompter.stable_prefix(conversation(middle))) <= wanted:
            low = middle
        else:
            high = middle
    chosen = conversation(low)
    prompt = prompter.render(chosen.followed_by((QUESTION,)))
    prefix_tokens = len(prompter.stable_prefix(chosen))
    model.close()
    return dict(chosen.messages[0]), list(prompt), prefix_tokens


def measure(
    work: Path,
    model_path: Path,
    system: dict,
    prompt: list[int],
    prefix_tokens: int,
    arguments: argparse.Namespace,
    console: Console,
) -> list[Series]:
    floor = Floor(model_path, prompt, prefix_tokens)
    data_dir = work / "data"
    seconds: dict[str, list[float]] = {name: [] for name in ("uncached", "resident", "ram", "disk")}
    evaluated: dict[str, int] = {}
    floors: list[float] = []
    with ServerProcess(data_dir, model_path) as server:
        client = Client(server)
        client.empty_the_buffer()  # warms up
        for _ in track(range(arguments.uncached_repeats), "Uncached", transient=True):
            seconds["uncached"].append(client.measure(system))
        evaluated["uncached"] = client.evaluated
        cache = client.create_cache(system)
    # Without a RAM tier, a prefix that left the buffer comes from disk.
    with (
        ServerProcess(data_dir, model_path) as server,
        ServerProcess(copy_of(data_dir), model_path, "[kvstore]\nram_bytes = 0") as diskless,
    ):
        client, disk_client = Client(server), Client(diskless)
        (stored,) = (copy_of(data_dir) / "kv").glob("*/*.kv")

        def from_disk() -> float:
            disk_client.empty_the_buffer()
            drop_from_page_cache(stored)
            return disk_client.measure(cache)

        def from_ram() -> float:
            client.empty_the_buffer()
            return client.measure(cache)

        rounds: list[tuple[str, Callable[[], float]]] = [
            ("ram", from_ram),
            ("resident", lambda: client.measure(cache)),
            ("disk", from_disk),
        ]
        client.measure(cache)  # from disk into RAM and the buffer
        disk_client.measure(cache)
        for _ in track(range(arguments.repeats), "Floor, resident, RAM, disk", transient=True):
            floors.append(floor.measure())
            for name, run in rounds:
                seconds[name].append(run())
        evaluated |= dict.fromkeys(("resident", "ram"), client.evaluated)
        evaluated["disk"] = disk_client.evaluated
        for source in ("resident", "ram", "disk"):
            count = (disk_client if source == "disk" else client)._server.metric(
                "mooring_prompt_tokens_cached_total", source=source
            )
            assert count >= arguments.repeats * prefix_tokens, (source, count)
    rows = [Series(name, values, evaluated[name]) for name, values in seconds.items()]
    return [*rows, Series("floor", floors, len(prompt) - prefix_tokens)]


def copy_of(data_dir: Path) -> Path:
    """A second server needs a data directory of its own; made once."""
    import shutil

    target = data_dir.with_name("data-for-disk")
    if not target.exists():
        shutil.copytree(data_dir, target, ignore=shutil.ignore_patterns("lock", "server.log"))
    return target


def drop_from_page_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def summarise(
    series: list[Series], arguments: argparse.Namespace, prefix_tokens: int, question_tokens: int
) -> dict:
    medians = {row.name: row.median for row in series}
    return {
        "benchmark": "ttft",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "llama_cpp_python": LIBRARY_VERSION,
        "shape": arguments.shape,
        "prefix_tokens": prefix_tokens,
        "question_tokens": question_tokens,
        "series": [asdict(row) | {"median_s": row.median} for row in series],
        "saving_percent": {
            name: 100 * (1 - medians[name] / medians["uncached"])
            for name in ("resident", "ram", "disk", "floor")
        },
        "over_floor": {name: medians[name] / medians["floor"] for name in ("resident", "ram", "disk")},
    }


def table(series: list[Series], report: dict) -> Table:
    shown = Table(
        title=f"TTFT, {report['shape']} shape, prefix of {report['prefix_tokens']:,} tokens,"
        f" question of {report['question_tokens']}"
    )
    shown.add_column("")
    for column in ("evaluated", "median ms", "min", "max", "saving", "over floor"):
        shown.add_column(column, justify="right")
    for row in series:
        saving = report["saving_percent"].get(row.name)
        ratio = report["over_floor"].get(row.name)
        shown.add_row(
            row.name,
            f"{row.prompt_tokens_evaluated:,}",
            *(f"{1000 * s:,.1f}" for s in (row.median, min(row.seconds), max(row.seconds))),
            "" if saving is None else f"{saving:.2f} %",
            "" if ratio is None else f"{ratio:.3f}",
        )
    return shown


def write(series: list[Series], report: dict, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "ttft.json").write_text(json.dumps(report, indent=2) + "\n")
    figure, axes = plt.subplots(figsize=(7, 3.2))
    names = [row.name for row in series]
    bars = axes.barh(names, [1000 * row.median for row in series], color="#2a6f97")
    axes.bar_label(bars, [f"{1000 * row.median:,.0f} ms" for row in series], padding=4)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.set_xlabel("time to first token, median, ms (logarithmic)")
    axes.set_title(
        f"{report['shape']} shape, {report['prefix_tokens']:,}-token prefix,"
        f" {report['question_tokens']}-token question"
    )
    figure.tight_layout()
    figure.savefig(out / "ttft.png", dpi=120)


if __name__ == "__main__":
    main()
