"""KV types with flash attention off and on: speed, memory, and whether results move with the batch.

    python benchmarks/kv_types.py               # both shapes, some minutes on 2 cores
    python benchmarks/kv_types.py --shape demo  # half a minute
    python benchmarks/kv_types.py --model some-trained-model.gguf

Each setting runs in a process of its own (`kv_type_setting.py`). Quantised KV needs flash attention.
What an earlier run measured with other models stays in the results.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mooring.engine.llamacpp.binding import LIBRARY_VERSION
from mooring.testing import DEMO, HALF, write_random_model

SHAPES = {"half": HALF, "demo": DEMO}
SETTINGS = [("f32", "off"), ("f16", "off"), ("f16", "on"), ("q8_0", "on")]
SETTINGS += [("bf16", "off"), ("bf16", "on"), ("f32", "on")]
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = parse_arguments()
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    json_path = arguments.out / "kv_types.json"
    models = json.loads(json_path.read_text())["models"] if json_path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="mooring-kv-types-") as directory:
        if arguments.model is not None:
            models[arguments.model.stem] = measure(arguments.model, Path(directory), arguments)
        else:
            for shape in SHAPES if arguments.shape == "all" else [arguments.shape]:
                path = write_random_model(Path(directory) / f"{shape}.gguf", SHAPES[shape])
                models[shape] = measure(path, Path(directory), arguments)
    report = {
        "benchmark": "kv_types",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
        "llama_cpp_python": LIBRARY_VERSION,
        "models": models,
    }
    for name, settings in models.items():
        console.print(table(name, settings))
    json_path.write_text(json.dumps(report, indent=2) + "\n")
    plot(models, arguments.out / "kv_types.png")
    console.print(f"written to {arguments.out}/kv_types.json and kv_types.png")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--model", type=Path, help="a full-attention GGUF instead of the random shapes")
    parser.add_argument("--repeats", type=int, default=2, help="of each prefill; the fastest counts")
    parser.add_argument(
        "--under", default="", help="a command to run each setting under: taskset -c 0,1"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(model: Path, work: Path, arguments: argparse.Namespace) -> list[dict]:
    """One report a setting, each with its difference to f32 without flash attention."""
    reports, exact = [], None
    for kv_type, flash in track(SETTINGS, f"Measuring {model.stem}", transient=True):
        logits_path = work / f"{model.stem}-{kv_type}-{flash}.npy"
        script = Path(__file__).with_name("kv_type_setting.py")
        command = [sys.executable, str(script), str(model), kv_type, flash]
        command += [str(arguments.repeats), str(logits_path)]
        run = subprocess.run(
            [*shlex.split(arguments.under), *command], stdout=subprocess.PIPE, check=True, text=True
        )
        logits = np.load(logits_path)
        exact = logits if exact is None else exact
        reports.append(
            json.loads(run.stdout)
            | {
                "off_exact": float(np.abs(logits - exact).max()),
                "other_argmax": int((logits.argmax(1) != exact.argmax(1)).sum()),
                "positions": len(logits),
            }
        )
    return reports


def label(setting: dict) -> str:
    return f"{setting['kv_type']}, {'on' if setting['flash_attention'] else 'off'}"


def moved(setting: dict) -> float:
    """How far the same question's logits lie apart between batches of different shapes."""
    return max(shape["largest"] for shape in setting["moved"].values())


def table(name: str, settings: list[dict]) -> Table:
    shown = Table(
        title=f"{name}: KV type and flash attention. Logits spread by {settings[0]['spread']:.1f};"
        f" differences are the largest over {settings[0]['positions']} positions"
    )
    shown.add_column("")
    lengths = [f"{speed['length'] // 1024}k" for speed in settings[0]["speeds"]]
    columns = [f"prefill tok/s at {length}" for length in lengths]
    columns += [f"step ms at {length}" for length in lengths]
    columns += ["memory MB", "off f32/off", "moves with batch", "other argmax"]
    for column in columns:
        shown.add_column(column, justify="right")
    for setting in settings:
        speeds = setting["speeds"]
        flips = max(shape["other_argmax"] for shape in setting["moved"].values())
        shown.add_row(
            label(setting),
            *(f"{speed['prefill_tokens_per_s']:,.0f}" for speed in speeds),
            *(f"{speed['step_ms']:,.1f}" for speed in speeds),
            f"{setting['own_bytes'] / 1e6:,.0f}",
            f"{setting['off_exact']:.4f}",
            f"{moved(setting):.4f}",
            f"{setting['other_argmax']}, {flips}",
        )
    return shown


def plot(models: dict[str, list[dict]], path: Path) -> None:
    figure, grid = plt.subplots(len(models), 4, figsize=(13, 3 * len(models)), squeeze=False)
    for axes, (name, settings) in zip(grid, models.items(), strict=True):
        names = [label(setting) for setting in settings]
        figures = {
            "prefill at 16k, tokens/s": [s["speeds"][-1]["prefill_tokens_per_s"] for s in settings],
            "step at 16k, ms": [s["speeds"][-1]["step_ms"] for s in settings],
            "memory, MB": [s["own_bytes"] / 1e6 for s in settings],
            "moves with batch": [moved(s) for s in settings],
        }
        for axis, (title, values) in zip(axes, figures.items(), strict=True):
            colors = ["#2a6f97" if s["flash_attention"] else "#a9a9a9" for s in settings]
            bars = axis.barh(names, values, color=colors)
            axis.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
            axis.margins(x=0.25)
            axis.invert_yaxis()
            axis.set_title(f"{name}: {title}", fontsize=10)
            if axis is not axes[0]:
                axis.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
