"""Counters are shown by another process, and go on in the one after it."""

import subprocess
import sys
from pathlib import Path

from mooring.engine.process.shared_metrics import SharedMetrics
from mooring.telemetry import ServerMetrics

WRITER = """
import os, sys
from pathlib import Path
from mooring.engine.process.shared_metrics import write_metrics_to
from mooring.telemetry import Metrics

write_metrics_to(Path(sys.argv[1]))
metrics = Metrics()
metrics.generated_tokens.inc(3)
metrics.evaluated_tokens.labels("prefix").inc(100)
metrics.running_requests.set(2)
os.kill(os.getpid(), 9)
"""


def write(shared: SharedMetrics) -> None:
    subprocess.run([sys.executable, "-c", WRITER, str(shared.folder)], check=False)


def test_metrics_of_a_killed_process_are_shown_and_counted_on(tmp_path: Path) -> None:
    shared, server = SharedMetrics(tmp_path), ServerMetrics()
    server.show(shared.collector)
    for run in (1, 2):
        write(shared)
        value = server.registry.get_sample_value
        assert value("mooring_completion_tokens_total") == 3 * run
        assert value("mooring_prompt_tokens_evaluated_total", {"purpose": "prefix"}) == 100 * run
        assert value("mooring_requests_running") == 2
        shared.forget_gauges()
        assert value("mooring_requests_running") is None
    shown = server.render().decode()
    assert "pid=" not in shown
    assert "# HELP mooring_completion_tokens_total Tokens drawn\n" in shown
    shared.close()
    assert not shared.folder.exists()


def test_what_a_killed_server_left_in_memory_goes_with_the_next(tmp_path: Path) -> None:
    left = SharedMetrics(tmp_path / "one")
    elsewhere = SharedMetrics(tmp_path / "two")
    again = SharedMetrics(tmp_path / "one")
    assert not left.folder.exists()
    assert elsewhere.folder.exists()
    again.close()
    elsewhere.close()
