"""What every test may ask for: a tiny real model, and a registry in either database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgresql import PostgresServer

from mooring.registry.database import Database
from mooring.testing import TINY, write_random_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-shaped GGUF of half a million random weights."""
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", TINY)


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
