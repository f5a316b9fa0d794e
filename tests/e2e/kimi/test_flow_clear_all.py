"""The flow of the official example: clear all caches by listing and deleting, then create and ask."""

import time
from pathlib import Path

import openai
import requests

from mooring.testing import ServerProcess

MODEL = "moonshot-v1"


def test_all_caches_are_cleared_and_a_new_one_is_asked(tmp_path: Path, tiny_model: Path, held) -> None:
    with ServerProcess(tmp_path, tiny_model) as server:
        url = f"{server.url}/v1/caching"
        for number in range(25):  # more than a page
            body = {"model": MODEL, "messages": [{"role": "system", "content": f"Manual {number}."}]}
            requests.post(url, json=body, timeout=60).raise_for_status()
        while caches := requests.get(url, timeout=60).json()["data"]:
            for cache in caches:
                requests.delete(f"{url}/{cache['id']}", timeout=60).raise_for_status()

        body = {
            "model": MODEL,
            "messages": [{"role": "system", "content": "The quay is 400 m long. " * 20}],
            "name": "manual",
            "ttl": 3600,
        }
        cache = requests.post(url, json=body, timeout=60).json()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            reply = client.chat.completions.create(
                model=MODEL,
                messages=[
                    {"role": "cache", "content": f"cache_id={cache['id']};reset_ttl=3600"},  # type: ignore[list-item]
                    {"role": "user", "content": "How long is the quay?"},
                ],
                max_tokens=8,
            )
        assert reply.usage.prompt_tokens_details.cached_tokens == held(cache)
        assert [each["id"] for each in requests.get(url, timeout=60).json()["data"]] == [cache["id"]]
        stored = list((tmp_path / "kv").glob("*/*/*.kv"))
        while len(stored) > 1:  # deletions are asked for, and done soon
            time.sleep(0.02)
            stored = list((tmp_path / "kv").glob("*/*/*.kv"))
