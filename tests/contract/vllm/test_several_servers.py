"""What several Mooring servers on one worker rely on: a list of all, and releases that last."""

import http.client
import json

from vllm_server import BLOCK, MODEL_TOKENS


def test_list_names_what_is_in_the_tier_or_pinned(server, fresh, root):
    server.order(release_all_but=[], delete=True)
    saved, pinned = fresh(), fresh()
    server.keep_durably(saved)
    server.keep_durably(pinned)
    server.order(release=[saved.id])
    (manifest,) = root.glob(f"*/contexts/{pinned.id}.kv")
    manifest.unlink()
    assert server.order(list=True).report["kept"] == sorted([saved.id, pinned.id])
    server.order(release=[pinned.id])
    assert server.order(list=True).report["kept"] == [saved.id]


def test_answer_that_outlives_its_context_does_not_pin_it_again(server, fresh):
    kept, other = fresh(), fresh()
    server.keep_durably(kept)
    server.keep_durably(other)
    body = {
        "model": "tiny",
        "prompt": [*kept.tokens, 7],
        "max_tokens": MODEL_TOKENS - len(kept) - 1,
        "ignore_eos": True,
        "stream": True,
        "cache_salt": kept.scope,
        "kv_transfer_params": {"mooring": {"use": kept.id, "tokens": len(kept), "lease_s": 600}},
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.readline().startswith(b"data: ")  # it has begun
    server.order(release=[kept.id], delete=True)
    assert reply.read().endswith(b"data: [DONE]\n\n")
    connection.close()
    assert server.stat()["pinned"] == {other.id: len(other) // BLOCK * BLOCK}
