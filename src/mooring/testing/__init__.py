"""For tests and benchmarks: random-weight models and real servers. Needs `mooring[models]`."""

from mooring.testing.engine import InstantEngine
from mooring.testing.folder import write_random_folder
from mooring.testing.models import write_random_model
from mooring.testing.server import ServerProcess
from mooring.testing.shape import (
    DEMO,
    HALF,
    TINY,
    TINY_HYBRID,
    TINY_LLAMA,
    TINY_RECURRENT,
    TINY_WIDE_HEADS,
    TINY_WINDOWED,
    Family,
    ModelShape,
)
from mooring.testing.vllm_worker import Served, VllmWorker
from mooring.testing.vocabulary import Vocabulary, bundled_model, read_vocabulary

__all__ = [
    "DEMO",
    "HALF",
    "TINY",
    "TINY_HYBRID",
    "TINY_LLAMA",
    "TINY_RECURRENT",
    "TINY_WIDE_HEADS",
    "TINY_WINDOWED",
    "Family",
    "InstantEngine",
    "ModelShape",
    "Served",
    "ServerProcess",
    "VllmWorker",
    "Vocabulary",
    "bundled_model",
    "read_vocabulary",
    "write_random_folder",
    "write_random_model",
]
