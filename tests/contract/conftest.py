"""Engines in the test's own process and event loop."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
