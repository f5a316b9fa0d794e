"""The bill over HTTP and on the command line, and through twenty kills."""

import csv
import io
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import sqlalchemy as sa
from settings import NAMED_ONLY

from mooring.core.charge import ChargeKind
from mooring.registry.database import Database
from mooring.registry.ledger import Ledger
from mooring.registry.schema import accounts, caches, charges
from mooring.testing import ServerProcess

DOLLARS = '[billing]\nplan = "dollar-2025"\n[caching]\nsweep_interval_s = 0.1\n' + NAMED_ONLY
PREPAID = DOLLARS.replace('"\n[', '"\nprepaid = true\n[', 1)
USER = {"role": "user", "content": "Is the quay clear?"}
SYSTEM = {"role": "system", "content": "Keep the quay clear at all hours. " * 10}


def mooring(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mooring", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def dollars(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("dollars"), tiny_model, DOLLARS) as running:
        yield running


@pytest.fixture
def paid(dollars: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=dollars.url, timeout=60) as client:
        yield client


def make_cache(http: httpx.Client, **fields: object) -> dict:
    cache = http.post("/v1/caching", json={"model": "moonshot-v1", "messages": [SYSTEM]} | fields).json()
    while cache["status"] == "pending":
        cache = http.get(f"/v1/caching/{cache['id']}").json()
    return cache


def ask(http: httpx.Client, use: str, **fields: object) -> dict:
    messages = [{"role": "cache", "content": use}, USER]
    body = {"model": "moonshot-v1-32k", "messages": messages, "max_tokens": 4}
    reply = http.post("/v1/chat/completions", json=body | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ask_streaming(http: httpx.Client, use: str) -> tuple[str, dict]:
    """The id and usage of an answer whose end has arrived, chunk by chunk."""
    messages = [{"role": "cache", "content": use}, USER]
    body = {"model": "moonshot-v1-32k", "messages": messages, "max_tokens": 4, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            chunk = json.loads(line[6:]) if line.startswith("data: {") else {"choices": []}
            usage = chunk["choices"][0].get("usage") if chunk["choices"] else None
            if usage is not None:
                return chunk["id"], usage
    raise httpx.ReadError("the stream ended before the answer did")


def test_a_chats_charge_is_explained_line_by_line(paid: httpx.Client):
    cache = make_cache(paid)
    answer = ask(paid, f"cache_id={cache['id']}")
    usage = answer["usage"]
    found = paid.get(f"/v1/usage/requests/{answer['id']}").json()
    lines = {line["kind"]: line for line in found["data"]}
    new = usage["prompt_tokens"] - usage["cached_tokens"]
    assert (lines["call"]["quantity"], lines["call"]["amount"]) == (1, "0.0015")
    assert (lines["input"]["quantity"], lines["input"]["unit"]) == (new, "0.000001")
    assert lines["cached_input"]["quantity"] == cache["tokens"]
    assert (lines["output"]["quantity"], lines["output"]["unit"]) == (
        usage["completion_tokens"],
        "0.000003",
    )
    nano = 1_500_000 + 1000 * new + 3000 * usage["completion_tokens"]
    assert found["amount"] == f"{nano / 10**9:.9f}".rstrip("0")
    assert (found["request_id"], found["currency"]) == (answer["id"], "USD")
    assert all(line["cache_id"] == cache["id"] for line in found["data"])


def test_a_streamed_chat_is_charged_before_its_end(paid: httpx.Client):
    body = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 8, "stream": True}
    with paid.stream("POST", "/v1/chat/completions", json=body) as reply:
        chunks = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    drawn = chunks[-1]["choices"][0]["usage"]["completion_tokens"]
    found = paid.get(f"/v1/usage/requests/{chunks[0]['id']}").json()
    assert {line["kind"]: line["quantity"] for line in found["data"]}["output"] == drawn


def test_usage_is_added_up_by_day_model_cache_and_tag(paid: httpx.Client):
    cache = make_cache(paid, tags=["rules"])
    for use in (f"cache_id={cache['id']}", "tag=rules", "tag=rules"):
        ask(paid, use)
    groups = {}
    for group in ("day", "model", "cache", "tag"):
        found = paid.get("/v1/usage", params={"group_by": group}).json()
        assert (found["object"], found["group_by"], found["currency"]) == ("list", group, "USD")
        groups[group] = {row["group"]: row for row in found["data"]}
    mine = groups["cache"][cache["id"]]
    assert mine["requests"] == 3
    while not (stored := mine["quantities"]["storage"]):  # its first minute begins within a second
        rows = paid.get("/v1/usage", params={"group_by": "cache"}).json()["data"]
        mine = next(row for row in rows if row["group"] == cache["id"])
    assert stored % cache["tokens"] == 0, "what runs is in it"
    assert mine["quantities"]["creation"] == cache["tokens"]
    assert mine["quantities"]["cached_input"] == 3 * cache["tokens"]
    assert mine["quantities"]["call"] == 3
    assert groups["tag"]["rules"]["requests"] == 2
    assert "moonshot-v1-32k" in groups["model"]
    (today,) = groups["day"].values()
    assert today["quantities"]["cached_input"] >= 3 * cache["tokens"]
    empty = paid.get("/v1/usage", params={"from": "2020-01-01", "to": "2020-12-31"}).json()
    assert empty["data"] == []


@pytest.mark.parametrize(
    ("query", "param"), [({"group_by": "week"}, "group_by"), ({"from": "yesterday"}, "from")]
)
def test_a_wrong_question_is_a_400(paid: httpx.Client, query: dict, param: str):
    reply = paid.get("/v1/usage", params=query)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_the_command_prints_the_same_in_three_ways(dollars: ServerProcess, paid: httpx.Client):
    ask(paid, f"cache_id={make_cache(paid)['id']}")
    where = ("--data-dir", str(dollars.log_path.parent), "--config")
    where += (str(dollars.log_path.parent / "test-config.toml"), "--by", "model")
    found = json.loads(mooring("bill", "--format", "json", *where).stdout)
    served = paid.get("/v1/usage", params={"group_by": "model"}).json()["data"]
    assert {row["group"]: row["amounts"].get("input") for row in found["data"]} == {
        row["group"]: row["amounts"].get("input") for row in served
    }
    rows = list(csv.DictReader(io.StringIO(mooring("bill", "--format", "csv", *where).stdout)))
    assert {row["model"] for row in rows} == {row["group"] for row in served}
    shown = mooring("bill", *where)
    assert shown.returncode == 0, shown.stderr
    assert "dollar-2025" in shown.stdout


def test_a_prepaid_balance_is_topped_up_and_used_up(tmp_path: Path, tiny_model: Path):
    with (
        ServerProcess(tmp_path, tiny_model, PREPAID) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):

        def balance() -> float:
            return http.get("/v1/users/me/balance").json()["data"]["available_balance"]

        assert balance() == 0
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as sdk:
            with pytest.raises(openai.RateLimitError) as caught:
                sdk.chat.completions.create(model="moonshot-v1", messages=[USER])
            assert caught.value.type == "exceeded_current_quota_error"
        where = ("--data-dir", str(tmp_path), "--config", str(tmp_path / "test-config.toml"))
        for _ in range(2):
            paid_in = mooring("top-up", "default", "0.0001", "--reference", "invoice 7", *where)
            assert "0.00 USD" in paid_in.stdout, paid_in.stderr
        assert balance() == pytest.approx(0.0001)
        body = {"model": "moonshot-v1", "messages": [USER], "max_tokens": 16}
        statuses = []
        while 429 not in statuses:
            statuses.append(http.post("/v1/chat/completions", json=body).status_code)
            assert len(statuses) < 100
        assert statuses.count(200) >= 1
        assert balance() <= 0
        assert http.get("/v1/models").status_code == 200, "what costs nothing goes on"


KILLS = 20


def test_the_ledger_is_right_after_twenty_kills_under_load(tmp_path: Path, tiny_model: Path):
    """Every answer that reached its client is in the ledger once, with what its usage says."""
    chance = random.Random(7)
    load = Load()
    for _ in range(KILLS):
        server = ServerProcess(tmp_path, tiny_model, DOLLARS)
        with load.on(server.url):
            load.wait_for_a_stream()  # however slow the machine is
            load.pause.wait(0.5 * chance.random())
            server.kill()
    with ServerProcess(tmp_path, tiny_model, DOLLARS):
        pass  # what was interrupted is brought to its end
    assert len(load.answers) > KILLS
    assert load.streamed >= KILLS
    database = Database(tmp_path / "registry.sqlite3")
    try:
        check(database, load)
    finally:
        database.close()


class Load:
    """Clients that make caches, chat with them and delete some, and note what they were told."""

    def __init__(self) -> None:
        self.answers: dict[str, dict] = {}
        self.streamed = 0
        self.deleted: set[str] = set()
        self.pause = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def wait_for_a_stream(self) -> None:
        """Until one more has come to its end."""
        before = self.streamed
        while self.streamed == before:
            assert any(thread.is_alive() for thread in self._threads), "all clients failed"
            self.pause.wait(0.01)

    def on(self, url: str) -> "Load":
        self._stop.clear()
        self._threads = [threading.Thread(target=self._run, args=(url, n)) for n in range(3)]
        return self

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, url: str, number: int) -> None:
        try:
            with httpx.Client(base_url=url, timeout=30) as http:
                while not self._stop.is_set():
                    cache = make_cache(http, ttl=10 + number)
                    use = f"cache_id={cache['id']};reset_ttl=10"
                    for _ in range(2):
                        answer = ask(http, use)
                        self.answers[answer["id"]] = answer["usage"]
                        streamed_id, usage = ask_streaming(http, use)
                        self.answers[streamed_id] = usage
                        self.streamed += 1
                    if number == 0:
                        gone = http.delete(f"/v1/caching/{cache['id']}")
                        assert gone.status_code == 200
                        self.deleted.add(cache["id"])
        except httpx.HTTPError:
            return  # killed


def check(database: Database, load: Load) -> None:
    ledger = Ledger(database)
    lines = ledger.lines("default")
    by_request: dict[str, dict[ChargeKind, int]] = {}
    for line in lines:
        if line.request_id is not None:
            kinds = by_request.setdefault(line.request_id, {})
            assert line.kind not in kinds, "nothing twice"
            kinds[line.kind] = line.quantity
    for request_id, usage in load.answers.items():
        expected = {
            ChargeKind.CALL: 1,
            ChargeKind.INPUT: usage["prompt_tokens"] - usage["cached_tokens"],
            ChargeKind.CACHED_INPUT: usage["cached_tokens"],
            ChargeKind.OUTPUT: usage["completion_tokens"],
        }
        assert by_request[request_id] == expected, "nothing missing"
    creations = Counter(line.cache_id for line in lines if line.kind is ChargeKind.CREATION)
    assert set(creations.values()) == {1}
    lives = {life.cache_id for life in ledger.open_lives()}
    with database.begin() as connection:
        status = dict(connection.execute(sa.select(caches.c.id, caches.c.status)).all())
        (balance,) = connection.execute(sa.select(accounts.c.balance)).scalars()
        total = connection.execute(sa.select(sa.func.sum(charges.c.amount))).scalar_one()
    assert balance == -total
    assert {cache_id for cache_id, each in status.items() if each == "ready"} <= lives
    assert lives <= {cache_id for cache_id, each in status.items() if each in ("ready", "pending")}
    assert lives <= creations.keys()
    assert load.deleted.isdisjoint(status)
    stored = {line.cache_id for line in lines if line.kind is ChargeKind.STORAGE}
    assert load.deleted <= stored
    inactive = {cache_id for cache_id, each in status.items() if each == "inactive"}
    assert inactive & creations.keys() <= stored
