"""A running server, shared by the tests that only talk to it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from postgresql import PostgresServer
from settings import NAMED_ONLY

from mooring.testing import ServerProcess


def _lifetime(fixture_name: str, config: pytest.Config) -> str:
    """Over vLLM's workers a server must end before another registry's begins: it would warm them."""
    return "module" if config.getoption("--engine") == "vllm" else "session"


@pytest.fixture(scope=_lifetime)
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
