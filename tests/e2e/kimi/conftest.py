"""What the sections share: a way to make a cache and to wait for it."""

import itertools
import time
from collections.abc import Callable

import httpx
import pytest

from mooring.testing.vllm_worker import BLOCK_TOKENS

_numbers = itertools.count()


@pytest.fixture
def create(http: httpx.Client) -> Callable[..., dict]:
    """Make a cache of messages nobody else has, and wait until it is ready."""

    def make(**fields: object) -> dict:
        text = f"Harbour rules, edition {next(_numbers)}. " + "Keep the quay clear. " * 20
        body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": text}]}
        reply = http.post("/v1/caching", json=body | fields)
        assert reply.status_code == 200, reply.text
        return wait_until_settled(http, reply.json())

    return make


def wait_until_settled(http: httpx.Client, cache: dict) -> dict:
    while cache["status"] == "pending":
        time.sleep(0.01)
        cache = http.get(f"/v1/caching/{cache['id']}").json()
    return cache


@pytest.fixture
def held(request: pytest.FixtureRequest) -> Callable[[dict], int]:
    """How many of a cache's tokens a use of it does not compute: with vLLM, those of whole blocks."""
    block = BLOCK_TOKENS if request.config.getoption("--engine") == "vllm" else 1
    return lambda cache: cache["tokens"] // block * block


@pytest.fixture
def settled(http: httpx.Client) -> Callable[[dict], dict]:
    return lambda cache: wait_until_settled(http, cache)
