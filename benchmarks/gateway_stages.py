"""Where a process's CPU time goes, by the stage of a request: samples of its stacks, sorted.

`py-spy` looks at the running process from outside, so what is measured runs as it always does.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_STAGES = (
    ("auth", ("mooring/api/auth.py", "mooring/service/tenants.py", "mooring/core/tenant.py")),
    ("limits", ("mooring/service/limiting.py", "mooring/core/limits.py", "/limits/")),
    ("engine", ("mooring/testing/engine.py", "mooring/core/prefix.py")),
    (
        "ledger",
        (
            "mooring/registry/ledger.py",
            "mooring/service/charging.py",
            "mooring/service/metering.py",
            "mooring/service/pricing.py",
        ),
    ),
    ("registry", ("mooring/registry/",)),
    (
        "body",
        (
            "mooring/api/body.py",
            "mooring/api/messages.py",
            "mooring/api/cache_role.py",
            "mooring/api/answer_format.py",
            "fastapi/dependencies/",
            "fastapi/_compat/",
            "pydantic/",
        ),
    ),
    (
        "reply",
        ("mooring/api/completion.py", "mooring/api/stream.py", "starlette/responses.py"),
    ),
    ("chat", ("mooring/service/", "mooring/api/openai.py")),
    ("routing", ("fastapi/", "starlette/")),
    (
        "HTTP and event loop",
        ("uvicorn/", "asyncio/", "mooring/serving.py", "concurrent/", "threading.py", "uvloop/"),
    ),
)
"""The first that a frame's file belongs to, innermost frame first; libraries in between are passed."""


def stages(process_id: int, seconds: float) -> dict[str, float]:
    """Shares of CPU time by stage, the largest first; they add up to 1.

    Raises:
        RuntimeError: py-spy may not look at that process.
    """
    with tempfile.NamedTemporaryFile(suffix=".txt") as found:
        command = [str(Path(sys.executable).with_name("py-spy")), "record", "--format", "raw"]
        command += ["--pid", str(process_id), "--duration", str(int(seconds)), "--rate", "250"]
        command += ["--full-filenames", "--output", found.name]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"py-spy: {ended.stderr.strip()}")
        return shares(Path(found.name).read_text())


def shares(stacks: str) -> dict[str, float]:
    """Of py-spy's raw lines: `outermost (file:line);...;innermost (file:line) samples`."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        counts[_stage(frames.split(";"))] += int(samples)
    return {stage: count / counts.total() for stage, count in counts.most_common()}


def _stage(frames: list[str]) -> str:
    for frame in reversed(frames):
        for stage, parts in _STAGES:
            if any(part in frame for part in parts):
                return stage
    return "other"
