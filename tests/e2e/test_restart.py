"""Nothing that was promised is lost when the process is."""

import time
from pathlib import Path

import httpx
from settings import NAMED_ONLY

from mooring.testing import ServerProcess

SYSTEM = " ".join(f"Berth {n} takes ships of {n * 3 % 50} metres." for n in range(100))
ASKED = {"model": "moonshot-v1", "temperature": 0, "max_tokens": 10}
QUESTION = {"role": "user", "content": "How long a ship takes berth 9?"}


def create(server: ServerProcess, system: str = SYSTEM) -> dict:
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": system}]}
    return httpx.post(f"{server.url}/v1/caching", json=body).json()


def status(server: ServerProcess, cache: dict) -> str:
    return httpx.get(f"{server.url}/v1/caching/{cache['id']}").json()["status"]


def ask(server: ServerProcess, first: dict) -> dict:
    body = ASKED | {"messages": [first, QUESTION]}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ask_cache(server: ServerProcess, cache: dict) -> dict:
    return ask(server, {"role": "cache", "content": f"cache_id={cache['id']}"})


def test_a_cache_answers_after_kill_9_and_nothing_is_prefilled_again(
    tmp_path: Path, tiny_model: Path
) -> None:
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:
        whole = ask(server, {"role": "system", "content": SYSTEM})
        cache = create(server)
        while status(server, cache) != "ready":
            time.sleep(0.02)
        server.kill()
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:
        found = httpx.get(f"{server.url}/v1/caching/{cache['id']}").json()
        answer = ask_cache(server, cache)
        assert found == cache | {"status": "ready"}
        assert answer["choices"][0]["message"] == whole["choices"][0]["message"]
        assert answer["usage"]["cached_tokens"] == cache["tokens"]
        assert server.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 0
        question = answer["usage"]["prompt_tokens"] - cache["tokens"]
        assert server.metric("mooring_prompt_tokens_evaluated_total", purpose="request") == question
        assert server.metric("mooring_prompt_tokens_cached_total", source="disk") == cache["tokens"]


def test_a_prefill_interrupted_by_kill_9_goes_on_after_the_restart(
    tmp_path: Path, tiny_model: Path
) -> None:
    long = " ".join(f"Berth {n} takes ships of {n * 3 % 50} metres." for n in range(2000))
    with ServerProcess(tmp_path, tiny_model) as server:
        cache = create(server, long)
        assert cache["status"] == "pending"
        server.kill()
    with ServerProcess(tmp_path, tiny_model) as server:
        answer = ask_cache(server, cache)  # waits for it
        assert answer["usage"]["cached_tokens"] == cache["tokens"]
        assert status(server, cache) == "ready"


def test_bytes_that_no_cache_wants_are_gone_after_a_restart(tmp_path: Path, tiny_model: Path) -> None:
    with ServerProcess(tmp_path, tiny_model) as server:
        cache = create(server)
        while status(server, cache) != "ready":
            time.sleep(0.02)
    blocks = tmp_path / "kv" / "blocks"
    stored = set(blocks.glob("*.kv"))
    orphan = blocks / f"{'ab' * 16}.kv"
    orphan.write_bytes(min(stored).read_bytes())
    with ServerProcess(tmp_path, tiny_model) as server:
        while orphan.exists():
            time.sleep(0.02)
        assert set(blocks.glob("*.kv")) == stored
        httpx.delete(f"{server.url}/v1/caching/{cache['id']}")
        while any(blocks.glob("*.kv")):
            time.sleep(0.02)


def test_another_model_computes_the_cache_again_and_answers_right(
    tmp_path: Path, tiny_model: Path
) -> None:
    from mooring.testing import TINY, write_random_model

    other_model = write_random_model(tmp_path / "other.gguf", TINY, seed=1)
    with ServerProcess(tmp_path, tiny_model) as server:
        cache = create(server)
        while status(server, cache) != "ready":
            time.sleep(0.02)
    with ServerProcess(tmp_path, other_model) as server:
        answer = ask_cache(server, cache)
        assert answer["usage"]["cached_tokens"] == 0
        assert server.metric("mooring_prefix_recomputed_total") == 1
        whole = ask(server, {"role": "system", "content": SYSTEM})
        assert answer["choices"][0]["message"] == whole["choices"][0]["message"]
