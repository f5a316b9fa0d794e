"""Limits of tenants over HTTP: the 429s, their headers, and places that are given back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from mooring.testing import ServerProcess

ADMIN_KEY = "admin-of-this-server"
CONFIG = f'[server]\nadmin_key = "{ADMIN_KEY}"\n[limits]\nconcurrent_requests = 4\n'
USER = {"role": "user", "content": "Is the quay clear?"}
CHAT = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 2}
LONG = {"type": "string", "minLength": 1_000_000}
ENDLESS = CHAT | {
    "max_tokens": 20_000,
    "stream": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "long", "schema": LONG}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("limits"), tiny_model, CONFIG) as running:
        yield running


@pytest.fixture
def admin(server: ServerProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=f"{server.url}/admin/v1", headers=headers) as client:
        yield client


@pytest.fixture
def tenant(
    server: ServerProcess, admin: httpx.Client, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """A tenant with the limits that the test is marked with."""
    (marker,) = request.node.iter_markers("limits")
    name = request.node.name[:60]
    admin.post("/tenants", json={"id": name}).raise_for_status()
    admin.patch(f"/tenants/{name}", json={"limits": marker.kwargs}).raise_for_status()
    key = admin.post(f"/tenants/{name}/keys", json={}).json()["secret"]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def chat(http: httpx.Client, **fields: object) -> httpx.Response:
    return http.post("/v1/chat/completions", json=CHAT | fields)


def check_429(reply: httpx.Response, kind: str = "rate_limit_reached_error") -> dict:
    assert reply.status_code == 429, reply.text
    error = reply.json()["error"]
    assert error["type"] == kind
    if kind == "rate_limit_reached_error":
        assert 1 <= int(reply.headers["Retry-After"]) <= 86_400
    return error


@pytest.mark.limits(requests_per_minute=20)
def test_requests_a_minute(tenant: httpx.Client):
    reply = chat(tenant)
    assert reply.status_code == 200
    assert reply.headers["x-ratelimit-limit-requests"] == "20"
    assert reply.headers["x-ratelimit-remaining-requests"] == "19"
    while (reply := chat(tenant)).status_code == 200:
        pass
    check_429(reply)
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert tenant.get("/v1/models").status_code == 200, "what is no chat goes on"


@pytest.mark.limits(requests_per_minute=1)
def test_the_sdk_sees_a_rate_limit(tenant: httpx.Client):
    key = tenant.headers["Authorization"].partition(" ")[2]
    url = f"{tenant.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as sdk:
        with pytest.raises(openai.RateLimitError) as caught:
            for _ in range(3):
                sdk.chat.completions.create(**CHAT)
        assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.limits(tokens_per_minute=60)
def test_tokens_a_minute(tenant: httpx.Client):
    used = chat(tenant).json()["usage"]["prompt_tokens"]
    assert used < 60
    while (reply := chat(tenant)).status_code == 200:
        assert reply.headers["x-ratelimit-limit-tokens"] == "60"
    check_429(reply)
    long = chat(tenant, messages=[{"role": "user", "content": "quay " * 100}])
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.limits(context_tokens=50)
def test_the_largest_context(tenant: httpx.Client):
    messages = [{"role": "system", "content": "quay " * 100}]
    for path in ("/v1/caching", "/v1/chat/completions"):
        reply = tenant.post(path, json={"model": "moonshot-v1", "messages": messages})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert chat(tenant).status_code == 200


@pytest.mark.limits(cached_tokens=100)
def test_cached_tokens_kept(tenant: httpx.Client):
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": "the " * 60}]}
    first = tenant.post("/v1/caching", json=body).json()
    assert 50 < first["tokens"] < 100
    error = check_429(tenant.post("/v1/caching", json=body), "exceeded_current_quota_error")
    assert "of at most 100" in error["message"]
    assert len(tenant.get("/v1/caching").json()["data"]) == 1
    tenant.delete(f"/v1/caching/{first['id']}")
    assert tenant.post("/v1/caching", json=body).status_code == 200


@pytest.mark.limits(cached_tokens=100)
def test_a_revival_is_held_to_what_may_be_kept(tenant: httpx.Client):
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": "the " * 60}]}
    first = tenant.post("/v1/caching", json=body | {"ttl": 1}).json()
    while tenant.get(f"/v1/caching/{first['id']}").json()["status"] != "inactive":
        pass
    while (second := tenant.post("/v1/caching", json=body)).status_code == 429:
        pass  # the first is swept soon
    use = {"role": "cache", "content": f"cache_id={first['id']};reset_ttl=60"}
    check_429(chat(tenant, messages=[use, USER]), "exceeded_current_quota_error")
    check_429(tenant.put(f"/v1/caching/{first['id']}", json={"ttl": 60}), "exceeded_current_quota_error")
    assert tenant.get(f"/v1/caching/{first['id']}").json()["status"] == "inactive"
    tenant.delete(f"/v1/caching/{second.json()['id']}")
    assert chat(tenant, messages=[use, USER]).status_code == 200


@pytest.mark.limits(cached_bytes=1)
def test_bytes_kept(tenant: httpx.Client):
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": "quay"}]}
    check_429(tenant.post("/v1/caching", json=body), "exceeded_current_quota_error")


@pytest.mark.limits(concurrent_requests=2)
def test_places_come_back_however_a_chat_ends(tenant: httpx.Client):
    """Two hundred streams that their clients break off, at most two at once."""

    async def run() -> list[int]:
        statuses: list[int] = []
        async with httpx.AsyncClient(
            base_url=tenant.base_url, headers=tenant.headers, timeout=60
        ) as http:

            async def break_off() -> None:
                async with http.stream("POST", "/v1/chat/completions", json=ENDLESS) as reply:
                    statuses.append(reply.status_code)
                    async for _ in reply.aiter_lines():
                        break

            for _ in range(50):
                await asyncio.gather(*(break_off() for _ in range(4)))
        return statuses

    statuses = asyncio.run(run())
    assert len(statuses) == 200
    assert set(statuses) == {200, 429}
    while (reply := chat(tenant)).status_code == 429:  # the last ones are being broken off
        check_429(reply)
    assert reply.status_code == 200
    for _ in range(3):  # more than there are places
        assert chat(tenant, temperature=9).status_code == 400
        long = [{"role": "user", "content": "quay " * 40_000}]
        assert chat(tenant, messages=long).status_code == 400
    assert chat(tenant).status_code == 200


def test_a_wrong_limit_is_named(admin: httpx.Client):
    admin.post("/tenants", json={"id": "wrong"}).raise_for_status()
    for limits in ({"speed": 5}, {"tokens_per_day": -1}):
        reply = admin.patch("/tenants/wrong", json={"limits": limits})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("limits")
