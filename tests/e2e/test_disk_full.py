"""A full disk: clear errors, nothing lost, no 500; deleting caches is the way out, and it works."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mooring.testing import ServerProcess

CONFIG = "[kvstore]\ndisk_reserve_bytes = 10_000_000"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 20 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(mount)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def create(http: httpx.Client, number: int) -> dict:
    text = f"Manual {number}. " + " ".join(f"Line {n} of {number}." for n in range(500))
    body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": text}]}
    reply = http.post("/v1/caching", json=body)
    assert reply.status_code == 200, reply.text
    cache = reply.json()
    while cache["status"] == "pending":
        time.sleep(0.01)
        cache = http.get(f"/v1/caching/{cache['id']}").json()
    return cache


def chat(http: httpx.Client, cache: dict) -> httpx.Response:
    messages = [
        {"role": "cache", "content": f"cache_id={cache['id']}"},
        {"role": "user", "content": "Hi"},
    ]
    body = {"model": "moonshot-v1", "messages": messages, "max_tokens": 2}
    return http.post("/v1/chat/completions", json=body)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), path.open("wb", 0) as file:
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk_refuses_new_caches_and_keeps_the_old(small_disk: Path, tiny_model: Path) -> None:
    with (
        ServerProcess(small_disk, tiny_model, CONFIG) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        kept = []
        while (cache := create(http, len(kept)))["status"] == "ready":
            kept.append(cache)
            assert len(kept) < 50, "twenty megabytes cannot hold this many"
        assert len(kept) >= 2
        assert cache["status"] == "error"
        assert cache["error"]["type"] == "engine_overloaded_error"
        assert "no room on disk" in cache["error"]["message"]

        refused = chat(http, cache)
        assert refused.status_code == 400
        assert "no room on disk" in refused.json()["error"]["message"]
        for old in kept:
            answer = chat(http, old)
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["cached_tokens"] == old["tokens"]

        for gone in (cache, kept.pop()):
            assert http.delete(f"/v1/caching/{gone['id']}").status_code == 200
        attempts = 0
        while (again := create(http, 99))["status"] != "ready":  # the bytes go a moment later
            http.delete(f"/v1/caching/{again['id']}")
            time.sleep(0.1)
            attempts += 1
            if attempts % 5 == 0:  # the registry's log has grown into what became free
                assert http.delete(f"/v1/caching/{kept.pop()['id']}").status_code == 200
        assert kept
        server.kill()
    with (
        ServerProcess(small_disk, tiny_model, CONFIG) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        for old in [*kept, again]:
            assert chat(http, old).json()["usage"]["cached_tokens"] == old["tokens"]


def test_a_registry_without_room_is_a_429(small_disk: Path, tiny_model: Path) -> None:
    with (
        ServerProcess(small_disk, tiny_model, CONFIG) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        cache = create(http, 0)
        filler = small_disk / "filler"
        fill(filler)
        # A row too large for what SQLite has allocated: it must ask the disk for more.
        body = {"model": "moonshot-v1", "messages": [{"role": "system", "content": "Fill. " * 7000}]}
        reply = http.post("/v1/caching", json=body)
        assert reply.status_code == 429, reply.text
        assert reply.json()["error"]["type"] == "engine_overloaded_error"
        assert reply.json()["error"]["code"] == "storage_full"
        assert chat(http, cache).status_code == 200
        filler.unlink()
        assert create(http, 1)["status"] == "ready"
