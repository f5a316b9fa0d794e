"""The engine's process is killed under a running server, which goes on serving."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from settings import NAMED_ONLY

from mooring.testing import ServerProcess

MANUAL = " ".join(f"Berth {n} takes ships of {n * 3 % 50} metres." for n in range(100))
QUESTION = {"role": "user", "content": "How long a ship takes berth 9?"}
LONG = {
    "type": "json_schema",
    "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 5000}},
}
COUNTERS = ("mooring_prompt_tokens_evaluated", "mooring_prompt_tokens_cached", "mooring_completion")


@pytest.fixture
def own(tmp_path: Path, tiny_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:
        yield server


@pytest.fixture
def client(own: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{own.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


def kill_engine(server: ServerProcess) -> None:
    os.kill(server.engine_pid, signal.SIGKILL)


def ready_cache(server: ServerProcess) -> dict:
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": MANUAL}]}
    cache = httpx.post(f"{server.url}/v1/caching", json=body, timeout=60).json()
    while cache["status"] == "pending":
        time.sleep(0.01)
        cache = httpx.get(f"{server.url}/v1/caching/{cache['id']}", timeout=60).json()
    assert cache["status"] == "ready"
    return cache


def on(cache: dict) -> list[dict]:
    return [{"role": "cache", "content": f"cache_id={cache['id']}"}, QUESTION]


def counters(server: ServerProcess) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    samples = [line.rpartition(" ") for line in lines if line.startswith(COUNTERS)]
    return {name: float(value) for name, _, value in samples}


def test_server_outlives_its_engine_and_the_next_request_is_a_hit(
    own: ServerProcess, client: openai.OpenAI
) -> None:
    cache = ready_cache(own)
    before, first = counters(own), own.engine_pid
    assert before['mooring_prompt_tokens_evaluated_total{purpose="prefix"}'] == cache["tokens"]
    stream = client.chat.completions.create(
        model="moonshot-v1", messages=on(cache), response_format=LONG, max_tokens=4000, stream=True
    )
    with pytest.raises(openai.APIError, match="send the request again") as ended:
        for chunk in stream:
            if chunk.choices[0].delta.content and own.engine_pid == first:
                kill_engine(own)
                assert httpx.get(f"{own.url}/health").json() == {"status": "ok"}
                assert httpx.get(f"{own.url}/v1/models").status_code == 200
                first = 0
    assert ended.value.body["type"] == "server_error"
    assert ended.value.body["code"] == "engine_restarted"

    answer = client.chat.completions.create(model="moonshot-v1", messages=on(cache), max_tokens=5)
    assert answer.usage.prompt_tokens_details.cached_tokens >= cache["tokens"]
    after = counters(own)
    assert own.metric("mooring_engine_restarts_total") == 1
    assert all(after[name] >= value for name, value in before.items())
    assert after['mooring_prompt_tokens_evaluated_total{purpose="prefix"}'] == cache["tokens"]
    assert own.metric("mooring_prompt_tokens_cached_total", source="disk") >= cache["tokens"]
    assert own.process.poll() is None


def test_request_whose_answer_had_not_begun_does_not_notice(
    own: ServerProcess, client: openai.OpenAI
) -> None:
    cache, heard = ready_cache(own), []
    os.kill(own.engine_pid, signal.SIGSTOP)  # so that it cannot answer before it dies

    def ask() -> None:
        heard.append(
            client.chat.completions.create(model="moonshot-v1", messages=on(cache), max_tokens=5)
        )

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    kill_engine(own)
    for thread in asking:
        thread.join()
    assert len(heard) == 4  # what they have in common beyond the cache may be shared, too
    assert all(answer.usage.prompt_tokens_details.cached_tokens >= cache["tokens"] for answer in heard)
    assert own.metric("mooring_engine_restarts_total") == 1


def test_answer_in_one_piece_is_a_503_that_clients_send_again(
    own: ServerProcess, client: openai.OpenAI
) -> None:
    replies, body = (
        [],
        {
            "model": "moonshot-v1",
            "messages": [QUESTION],
            "response_format": LONG,
            "max_tokens": 4000,
        },
    )

    def ask() -> None:
        replies.append(httpx.post(f"{own.url}/v1/chat/completions", json=body, timeout=60))

    asking = threading.Thread(target=ask)
    asking.start()
    while own.metric("mooring_completion_tokens_total") < 20:
        time.sleep(0.005)
    kill_engine(own)
    asking.join()
    (reply,) = replies
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "1"
    assert reply.json()["error"]["code"] == "engine_restarted"
    assert client.chat.completions.create(model="moonshot-v1", messages=[QUESTION], max_tokens=2).usage


def test_cache_that_was_being_made_when_the_engine_died_becomes_ready(own: ServerProcess) -> None:
    long = " ".join(f"Berth {n} takes ships of {n * 3 % 50} metres." for n in range(2000))
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": long}]}
    cache = httpx.post(f"{own.url}/v1/caching", json=body, timeout=60).json()
    assert cache["status"] == "pending"
    kill_engine(own)
    while cache["status"] == "pending":
        time.sleep(0.01)
        cache = httpx.get(f"{own.url}/v1/caching/{cache['id']}", timeout=60).json()
    assert cache["status"] == "ready"
    assert own.metric("mooring_engine_restarts_total") == 1


def test_engine_that_cannot_come_back_is_told_by_health_and_by_a_503(
    tmp_path: Path, tiny_model: Path
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny_model.read_bytes())
    with ServerProcess(tmp_path / "data", model) as server:
        model.rename(tmp_path / "away.gguf")
        kill_engine(server)
        body = {"model": "moonshot-v1", "messages": [QUESTION], "max_tokens": 2}
        chat = f"{server.url}/v1/chat/completions"
        refused = httpx.post(chat, json=body, timeout=60)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "10"
        assert refused.json()["error"]["code"] == "engine_unavailable"
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503
        assert "model.gguf" in health.json()["reason"]
        (tmp_path / "away.gguf").rename(model)
        while httpx.get(f"{server.url}/health").status_code != 200:
            time.sleep(0.05)
        assert httpx.post(chat, json=body, timeout=60).status_code == 200


def test_engine_ends_with_its_server(own: ServerProcess) -> None:
    engine = Path(f"/proc/{own.engine_pid}/stat")
    own.kill()
    while engine.exists() and engine.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
