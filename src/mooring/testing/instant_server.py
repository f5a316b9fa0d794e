"""`python -m mooring.testing.instant_server CONFIG`: a server whose engine answers at once.

What it takes for a request is what everything but inference takes.
"""

import sys
from pathlib import Path

from mooring import serving
from mooring.app import Services
from mooring.config import Config, load_config
from mooring.engine.interface import Engine, OnProgress
from mooring.telemetry import ServerMetrics, configure_logging
from mooring.testing.engine import InstantEngine


async def _load(_config: Config, _metrics: ServerMetrics, _on_progress: OnProgress) -> Engine:
    return InstantEngine()


async def _say_where(_services: Services, port: int) -> None:
    sys.stderr.write(f"base URL   http://127.0.0.1:{port}/v1\n")
    sys.stderr.flush()


if __name__ == "__main__":
    configure_logging("WARNING")
    serving.run(serving.serve(load_config(Path(sys.argv[1])), _say_where, load=_load))
