"""One real vLLM for many checks: it takes half a minute to start."""

import itertools

import pytest
from vllm_server import VllmServer, prefix, vllm_python

from mooring.testing import TINY_WIDE_HEADS, write_random_folder

_SEEDS = itertools.count(1000)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    vllm_python()
    return write_random_folder(tmp_path_factory.mktemp("models") / "tiny", TINY_WIDE_HEADS)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The folder of the files tier."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def server(model_folder, root, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    settings = {"tier": "files", "root": str(root), "object_bytes": 300_000}
    # Scheduling ahead of results is what GPUs do; the other module's server does without.
    with VllmServer(model_folder, log, settings, "--async-scheduling") as running:
        yield running


@pytest.fixture
def fresh(request):
    """Makes prefixes that no other test has."""

    def make(count=330, scope="tenant-a"):
        return prefix(count, next(_SEEDS), scope)

    yield make
    if "server" in request.fixturenames:
        request.getfixturevalue("server").order(release_all_but=[])
