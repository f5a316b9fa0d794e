"""A damaged KV file is noticed before llama.cpp sees it, computed again, and counted."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from settings import NAMED_ONLY

from mooring.kvstore.match import BLOCK_TOKENS
from mooring.testing import ServerProcess

SYSTEM = " ".join(f"Buoy {n} lies at {n * 13 % 180} degrees." for n in range(100))
QUESTION = {"role": "user", "content": "Where lies buoy 7?"}


def flip_a_payload_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def break_the_description(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def cut_it_short(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


def put_another_block_there(path: Path) -> None:
    other = next(other for other in path.parent.glob("*.kv") if other != path)
    path.write_bytes(other.read_bytes())


def put_something_else_there(path: Path) -> None:
    path.write_bytes(b"GIF89a" * 10_000)


def remove_it(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_payload_bit, "corrupt"),
        (break_the_description, "corrupt"),
        (cut_it_short, "truncated"),
        (empty_it, "truncated"),
        (put_another_block_there, "foreign"),
        (put_something_else_there, "foreign"),
        (remove_it, None),  # the start sees that
    ],
)
def test_damaged_bytes_are_computed_again_once(
    damage: Callable[[Path], None], reason: str | None, tmp_path: Path, tiny_model: Path
) -> None:
    """The second block of several: the first is still used, those behind it are of no use without it."""
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:
        cache = create(server, SYSTEM)
    damage(second_block(tmp_path / "kv" / "blocks"))
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:
        first = ask_cache(server, cache)
        assert first["usage"]["cached_tokens"] == BLOCK_TOKENS  # the rest was computed, and it says so
        second = ask_cache(server, cache)
        assert second["usage"]["cached_tokens"] == cache["tokens"]
        whole = ask(server, {"role": "system", "content": SYSTEM})
        for answer in (first, second):
            assert answer["choices"][0]["message"] == whole["choices"][0]["message"]
        assert server.metric("mooring_prefix_recomputed_total") == 1
        if reason is not None:
            assert server.metric("mooring_kv_rejected_total", reason=reason) == 1
    with ServerProcess(tmp_path, tiny_model, NAMED_ONLY) as server:  # it was saved again
        assert ask_cache(server, cache)["usage"]["cached_tokens"] == cache["tokens"]


def second_block(folder: Path) -> Path:
    """The file of the block behind the first one, by what the files say of themselves."""
    described = {
        path: json.loads(path.read_bytes()[24:4096].rstrip(b"\x00")) for path in folder.glob("*.kv")
    }
    keys = {each["key"] for each in described.values()}
    (first,) = (each["key"] for each in described.values() if each["parent"] not in keys)
    (second,) = (path for path, each in described.items() if each["parent"] == first)
    return second


def create(server: ServerProcess, system: str) -> dict:
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": system}]}
    cache = httpx.post(f"{server.url}/v1/caching", json=body).json()
    path = f"{server.url}/v1/caching/{cache['id']}"
    while httpx.get(path).json()["status"] != "ready":
        time.sleep(0.02)
    return cache


def ask(server: ServerProcess, first: dict) -> dict:
    body = {
        "model": "moonshot-v1",
        "temperature": 0,
        "max_tokens": 10,
        "messages": [first, QUESTION],
    }
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def ask_cache(server: ServerProcess, cache: dict) -> dict:
    return ask(server, {"role": "cache", "content": f"cache_id={cache['id']}"})
