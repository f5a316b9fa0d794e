"""Engines in the test's own process and event loop; registries in either database."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mooring.registry.database import Database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Where = Path | sa.URL


@pytest.fixture(scope="session")
def migrated(request: pytest.FixtureRequest) -> str:
    """A database of the PostgreSQL server that has been migrated, to be copied."""
    server = request.getfixturevalue("postgres_server")
    url = server.create()
    Database(sa.make_url(url)).close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Where]:
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
def database(where: Where) -> Iterator[Database]:
    """An empty registry."""
    database = Database(where)
    yield database
    database.close()


Open = Callable[[Where], Database]
