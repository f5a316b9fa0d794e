"""What every test may ask for: a tiny real model and a real PostgreSQL server, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import PostgresServer

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
