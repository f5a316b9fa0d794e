"""For tests and benchmarks: random-weight models and real servers. Needs `mooring[models]`."""

from mooring.testing.engine import InstantEngine
from mooring.testing.models import (
    DEMO,
    HALF,
    TINY,
    ModelShape,
    Vocabulary,
    bundled_model,
    read_vocabulary,
    write_random_model,
)
from mooring.testing.server import ServerProcess

__all__ = [
    "DEMO",
    "HALF",
    "TINY",
    "InstantEngine",
    "ModelShape",
    "ServerProcess",
    "Vocabulary",
    "bundled_model",
    "read_vocabulary",
    "write_random_model",
]
