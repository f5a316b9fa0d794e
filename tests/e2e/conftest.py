"""A running server, shared by the tests that only talk to it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from postgresql import PostgresServer
from settings import NAMED_ONLY

from mooring.testing import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    """A server over the tiny model. Tests that stop, break or fill one start their own."""
    with ServerProcess(tmp_path_factory.mktemp("server"), tiny_model, NAMED_ONLY) as running:
        yield running


@pytest.fixture(scope="module")
def registry() -> Iterator[PostgresServer]:
    """A server that a module's tests may stop."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """Plain HTTP to the shared server."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def sdk(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK on the shared server."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client
