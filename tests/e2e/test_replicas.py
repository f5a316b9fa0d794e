"""Two real servers on one PostgreSQL: keys, caches, limits and bills are of both; and an outage."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from ledgers import lines
from load import Load
from postgresql import PostgresServer
from settings import NAMED_ONLY

from mooring.core.charge import ChargeKind
from mooring.registry.database import Database
from mooring.registry.ledger import Ledger
from mooring.testing import ServerProcess

ADMIN_KEY = "admin-of-these-servers"
CONFIG = f"""
[server]
admin_key = "{ADMIN_KEY}"
[registry]
url = "URL"
claim_s = 1.5
[caching]
sweep_interval_s = 0.2
[billing]
plan = "dollar-2025"
{NAMED_ONLY}"""
USER = {"role": "user", "content": "Is the quay clear?"}
SYSTEM = {"role": "system", "content": "Keep the quay clear at all hours. " * 10}
CHAT = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 4}
OUTAGE_S = 10


@pytest.fixture
def url(registry: PostgresServer) -> Iterator[str]:
    url = registry.create()
    yield url
    registry.drop(url)


@pytest.fixture
def pair(url: str, tmp_path: Path, tiny_model: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    config = CONFIG.replace("URL", url)
    with (
        ServerProcess(tmp_path / "one", tiny_model, config) as one,
        ServerProcess(tmp_path / "two", tiny_model, config) as two,
    ):
        yield one, two


@pytest.fixture
def ledger(url: str, registry: PostgresServer) -> Iterator[Ledger]:
    database = Database(sa.make_url(url), connections=2)
    yield Ledger(database)
    database.close()


def mooring(url: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mooring", *arguments],
        env=os.environ | {"MOORING_REGISTRY_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def made(server: ServerProcess, **fields: object) -> dict:
    body = {"model": "moonshot-v1", "messages": [SYSTEM], "ttl": 3600} | fields
    reply = httpx.post(f"{server.url}/v1/caching", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def when_ready(server: ServerProcess, cache: dict) -> dict:
    while cache["status"] == "pending":
        cache = httpx.get(f"{server.url}/v1/caching/{cache['id']}", timeout=60).json()
    assert cache["status"] == "ready"
    return cache


def test_a_cache_made_on_one_is_used_on_the_other_and_billed_once(pair, url: str):
    cache = when_ready(pair[1], made(pair[0]))
    use = {"role": "cache", "content": f"cache_id={cache['id']}"}
    answers = []
    for server in pair * 2:
        body = CHAT | {"messages": [use, USER]}
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        answers.append(reply.json())
    assert [answer["usage"].get("cached_tokens", 0) for answer in answers[2:]] == [cache["tokens"]] * 2
    found = lines(url)
    assert [line.cache_id for line in found if line.kind == ChargeKind.CREATION] == [cache["id"]]
    assert {line.request_id for line in found} - {None} == {answer["id"] for answer in answers}
    (row,) = json.loads(mooring(url, "bill", "--format", "json"))["data"]
    assert row["requests"] == 4


def test_a_key_made_by_a_command_opens_both_and_its_secret_is_in_no_log(pair, url: str):
    secret = mooring(url, "key", "create").strip()
    for server in pair:
        while httpx.get(f"{server.url}/v1/models").status_code == 200:
            pass  # trusted to be open for a few seconds more
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
        log = server.log_path.read_text()
        assert "postgresql" in log.lower()
        assert str(sa.make_url(url).password) not in log


def test_what_a_killed_server_was_filling_is_filled_by_the_other(pair, url: str):
    long = {"role": "system", "content": "Keep the quay clear at all hours. " * 200}
    cache = made(pair[0], messages=[long])
    pair[0].kill()
    when_ready(pair[1], cache)
    assert [line.cache_id for line in lines(url)] == [cache["id"]]


def test_a_limit_holds_across_both(pair):
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=f"{pair[0].url}/admin/v1", headers=headers) as admin:
        admin.post("/tenants", json={"id": "north"}).raise_for_status()
        admin.patch("/tenants/north", json={"limits": {"requests_per_minute": 12}}).raise_for_status()
        key = admin.post("/tenants/north/keys", json={}).json()["secret"]
    while any(httpx.get(f"{server.url}/v1/models").status_code == 200 for server in pair):
        time.sleep(0.1)  # until both know that there is a key
    statuses: Counter[int] = Counter()
    begun = time.time()
    while statuses[429] < 4:
        for server in pair:
            headers = {"Authorization": f"Bearer {key}"}
            reply = httpx.post(
                f"{server.url}/v1/chat/completions", json=CHAT, headers=headers, timeout=60
            )
            statuses[reply.status_code] += 1
    assert set(statuses) == {200, 429}
    minutes = int(
        time.time() // 60 - begun // 60
    )  # that have begun meanwhile; the first was not a whole one
    assert 12 <= statuses[200] <= 12 * (2 + minutes)


# The database is away


def test_an_outage_of_the_registry_fails_cleanly_and_loses_no_charge(
    pair, url: str, registry: PostgresServer
):
    with Load([server.url for server in pair], CHAT) as load:
        load.until_answered(20)
        registry.stop()
        time.sleep(OUTAGE_S)
        assert load.statuses[503] > 0
        registry.start()
        load.until_answered(20)
    assert set(load.statuses) == {200, 503}
    for refusal in load.refusals:
        error = refusal.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "registry_unavailable")
        assert int(refusal.headers["Retry-After"]) >= 1
    for server in pair:
        while not httpx.get(f"{server.url}/metrics").is_success:  # not reached again yet
            time.sleep(0.1)
        while server.metric("mooring_charges_waiting_bytes"):
            time.sleep(0.05)
        server.stop()
        assert "Traceback" not in server.log_path.read_text()
    logs = "".join(server.log_path.read_text() for server in pair)
    assert "chat charged later" in logs  # what was being answered when it went away
    found = lines(url)
    charged: dict[str, dict[str, int]] = {}
    for line in found:
        charged.setdefault(line.request_id, {})[line.kind] = line.quantity
    assert charged == {
        name: {"input": usage["prompt_tokens"], "output": usage["completion_tokens"]}
        for name, usage in load.answered.items()
    }
