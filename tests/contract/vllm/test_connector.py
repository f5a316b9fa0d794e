"""What the connector promises in a real vLLM: kept blocks stay, load, and are not computed unsaid."""

import http.client
import json
import threading
import time

import pytest
from vllm_server import BLOCK, MODEL_TOKENS, PIN_BUDGET, tokens

from mooring.core.prefix import Prefix


def full(prefix):
    """Tokens in whole blocks: what can be kept."""
    return len(prefix) // BLOCK * BLOCK


def evict(server, *prefixes):
    """Off the device, and in the tier still."""
    server.order(release=[prefix.id for prefix in prefixes])
    server.thrash()


def failure(server, prefix):
    return server.stat()["failures"].get(prefix.id, {}).get("code")


def object_files(root):
    return sorted(root.glob("*/objects/*.kv"))


def manifest_file(root, prefix):
    (path,) = root.glob(f"*/contexts/{prefix.id}.kv")
    return path


# --- keeping


def test_keep_pins_whole_blocks_and_saves_them(server, fresh, root):
    kept = fresh(330)
    reply = server.keep_durably(kept)
    assert reply.report["pinned_tokens"] == 320
    assert reply.report["id"] == kept.id
    assert manifest_file(root, kept)
    assert server.stat()["pinned"] == {kept.id: 320}


def test_keeping_again_computes_nothing(server, fresh):
    kept = fresh(330)
    assert server.keep_durably(kept).cached in {0, 320}
    assert server.keep(kept).cached == 320


def test_pinned_context_outlives_a_flood_and_another_does_not(server, fresh):
    kept, other = fresh(), fresh()
    server.keep_durably(kept)
    server.complete(other.tokens, salt=other.scope)
    server.thrash()
    assert server.use(kept, 7, 8).cached == full(kept)
    assert server.complete((*other.tokens, 7, 8), salt=other.scope).cached == 0


def test_another_tenant_hits_nothing(server, fresh):
    kept = fresh()
    server.keep_durably(kept)
    assert server.complete((*kept.tokens, 7), salt="tenant-b").cached == 0


def test_use_of_what_is_pinned_answers_as_without_a_cache(server, fresh):
    kept = fresh()
    server.keep_durably(kept)
    used = server.use(kept, 7, 8, 9, max_tokens=12)
    computed = server.complete((*kept.tokens, 7, 8, 9), salt="nobody", max_tokens=12)
    assert (used.cached, computed.cached) == (full(kept), 0)
    assert used.text == computed.text


def test_two_contexts_that_begin_alike_share_pinned_blocks(server, fresh):
    longer = fresh(640)
    shorter = Prefix(longer.scope, longer.tokens[:330])
    server.keep_durably(longer)
    assert server.keep_durably(shorter).report["pinned_blocks"] == 20


def test_pin_that_does_not_fit_is_refused_and_the_context_saved(server, fresh):
    first, second = fresh(1000), fresh(1000)
    server.keep_durably(first)
    assert server.keep_durably(second).report["pinned_blocks"] == 62
    third = fresh(330)
    reply = server.keep_durably(third)
    assert reply.error == "pin_budget"
    assert (reply.report["pinned_tokens"], reply.report["pin_budget_blocks"]) == (0, PIN_BUDGET)
    longest = tokens(MODEL_TOKENS - 1, 5)
    assert server.complete(longest).status == 200  # pins leave room for it
    server.thrash()
    assert server.use(third, 7).cached == full(third)


def test_prefix_of_less_than_a_block_is_not_kept(server, fresh):
    kept = fresh(BLOCK - 1)
    reply = server.keep(kept)
    assert (reply.error, reply.report["durable"]) == ("too_short", False)
    assert server.use(kept, 7).status == 200


def test_prefix_of_exactly_its_blocks_is_kept(server, fresh):
    kept = fresh(10 * BLOCK)
    assert server.keep_durably(kept).report["pinned_tokens"] == 10 * BLOCK
    assert server.use(kept, 7).cached == 10 * BLOCK
    evict(server, kept)
    assert server.use(kept, 7).cached == 10 * BLOCK
    evict(server, kept)
    # The prompt ends with the prefix: its last token is computed, so its last block is.
    assert server.use(kept).cached == 9 * BLOCK


@pytest.mark.parametrize(
    "order",
    [
        {"keep": "x", "tokens": 1, "lease_s": 1},
        {"use": "ab" * 32},
        {"stat": True, "release": []},
        {},
        "x",
    ],
    ids=str,
)
def test_order_that_cannot_be_read_is_told(server, order):
    assert server.complete([5], order).error == "malformed"


# --- leases and release


def test_lease_that_ends_frees_the_blocks_of_an_idle_engine(server, fresh):
    kept = fresh()
    assert server.keep_durably(kept, lease_s=0.5).report["pinned_blocks"] == full(kept) // BLOCK
    time.sleep(0.6)
    assert server.stat()["pinned_blocks"] == 0
    server.thrash()
    assert server.complete((*kept.tokens, 7), salt=kept.scope).cached == 0


def test_use_renews_the_lease(server, fresh):
    kept = fresh()
    server.keep_durably(kept, lease_s=1)
    server.use(kept, 7, lease_s=600)
    time.sleep(1.1)
    assert server.stat()["pinned"] == {kept.id: full(kept)}


def test_release_frees_blocks_and_leaves_the_tier(server, fresh, root):
    kept, other = fresh(), fresh()
    server.keep_durably(kept)
    server.keep_durably(other)
    assert server.order(release=[kept.id]).report["pinned_blocks"] == full(other) // BLOCK
    server.thrash()
    assert server.complete((*kept.tokens, 7), salt=kept.scope).cached == 0
    assert manifest_file(root, kept)


def test_release_with_delete_removes_the_bytes(server, fresh, root):
    kept, other = fresh(), fresh()
    server.keep_durably(other)
    before = object_files(root)
    server.keep_durably(kept)
    assert len(object_files(root)) > len(before)
    server.order(release=[kept.id], delete=True)
    assert object_files(root) == before
    server.thrash()
    assert server.use(kept, 7).status == 500
    assert server.use(other, 7).cached == full(other)


def test_release_with_delete_of_what_is_being_saved_removes_it_after_that(server, fresh, root):
    kept = fresh(1000)
    server.keep(kept)
    server.order(release=[kept.id], delete=True)
    server.wait_until_saved()
    server.order(release=[], delete=True)  # one thread: what was asked before is done
    assert not list(root.glob(f"*/contexts/{kept.id}.kv"))


def test_release_all_but_releases_the_others(server, fresh, root):
    kept, other = fresh(), fresh()
    server.keep_durably(kept)
    server.keep_durably(other)
    server.order(release_all_but=[kept.id], delete=True)
    assert server.stat()["pinned"] == {kept.id: full(kept)}
    assert [path.stem for path in root.glob("*/contexts/*.kv")] == [kept.id]


# --- loading


def test_released_context_is_loaded_with_nothing_computed_but_the_remainder(server, fresh):
    kept = fresh(330)
    server.keep_durably(kept)
    expected = server.use(kept, 7, 8, 9, max_tokens=12).text
    evict(server, kept)
    loaded = server.use(kept, 7, 8, 9, max_tokens=12)
    assert (loaded.cached, loaded.text) == (320, expected)
    assert loaded.report["pinned_tokens"] == 320


def test_part_that_the_device_lacks_is_loaded(server, fresh):
    longer = fresh(650)
    shorter = Prefix(longer.scope, longer.tokens[:330])
    server.keep_durably(longer)
    server.keep_durably(shorter)
    expected = server.use(longer, 7, 8, max_tokens=12).text
    evict(server, longer)  # the shorter one stays pinned
    loaded = server.use(longer, 7, 8, max_tokens=12)
    assert (loaded.cached, loaded.text) == (640, expected)


def test_keep_loads_instead_of_computing(server, fresh):
    kept = fresh()
    server.keep_durably(kept)
    evict(server, kept)
    reply = server.keep(kept)
    assert (reply.cached, reply.report["durable"], reply.report["pinned_tokens"]) == (320, True, 320)


def test_uses_at_the_same_time_load_once(server, fresh):
    kept = fresh(900)
    server.keep_durably(kept)
    evict(server, kept)
    mark, replies = len(server.printed()), []
    threads = [
        threading.Thread(target=lambda n=n: replies.append(server.use(kept, 7, n))) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.cached for reply in replies] == [full(kept)] * 4
    assert server.printed()[mark:].count(f"loaded context={kept.id}") == 1


def test_keeps_at_the_same_time_compute_once(server, fresh):
    kept = fresh(900)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(server.keep(kept))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.cached for reply in replies)[1:] == [full(kept)] * 2


def test_client_that_goes_away_leaves_a_working_engine(server, fresh):
    kept = fresh(900)
    server.keep_durably(kept)
    evict(server, kept)
    order = {"use": kept.id, "tokens": len(kept), "lease_s": 60}
    body = {
        "model": "tiny",
        "prompt": [*kept.tokens, 7],
        "max_tokens": 100,
        "ignore_eos": True,
        "cache_salt": kept.scope,
        "stream": True,
        "kv_transfer_params": {"mooring": order},
    }
    for delay_s in (0, 0.01, 0.05, 0.2):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        time.sleep(delay_s)
        connection.close()
    assert server.use(kept, 7).cached == full(kept)
    assert server.order(release=[kept.id]).report["pinned_blocks"] == 0


# --- refusing


def test_unknown_context_fails(server, fresh):
    unknown = fresh()
    assert server.use(unknown, 7).status == 500
    assert failure(server, unknown) == "unknown"
    assert server.complete(unknown.tokens).status == 200


def test_other_tokens_under_a_known_id_fail(server, fresh):
    kept, other = fresh(), fresh()
    server.keep_durably(kept)
    order = {"use": kept.id, "tokens": len(kept), "lease_s": 60}
    assert server.complete((*other.tokens, 7), order, kept.scope).status == 500
    assert failure(server, kept) == "mismatch"


@pytest.mark.parametrize("scope", ["tenant-b", None])
def test_another_tenant_cannot_use_a_known_id(server, fresh, scope):
    kept = fresh()
    server.keep_durably(kept)
    order = {"use": kept.id, "tokens": len(kept), "lease_s": 60}
    assert server.complete((*kept.tokens, 7), order, scope).status == 500
    assert failure(server, kept) == "mismatch"


def test_nothing_is_kept_under_a_foreign_id(server, fresh):
    kept, other = fresh(), fresh()
    order = {"keep": other.id, "tokens": len(kept), "lease_s": 60}
    reply = server.complete(kept.tokens, order, kept.scope)
    assert (reply.error, reply.report["durable"], reply.report["pinned_blocks"]) == (
        "mismatch",
        False,
        0,
    )


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace(path):
    path.write_bytes(b"GGUF" * 10_000)


DAMAGES = {
    "a flipped bit": (flip, "damaged"),
    "a lost byte": (cut, "damaged"),
    "another kind of file": (replace, "damaged"),
    "a lost file": (lambda path: path.unlink(), "unknown"),
}


@pytest.mark.parametrize(("damage", "code"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_bytes_fail_and_are_written_anew_when_kept_again(server, fresh, root, damage, code):
    before = set(object_files(root))
    kept = fresh(650)
    server.keep_durably(kept)
    expected = server.use(kept, 7, max_tokens=12).text
    evict(server, kept)
    damage(sorted(set(object_files(root)) - before)[1])
    assert server.use(kept, 7).status == 500
    assert failure(server, kept) == code
    assert server.keep(kept).status == 200
    assert server.keep_durably(kept).report["pinned_tokens"] == full(kept)
    evict(server, kept)
    loaded = server.use(kept, 7, max_tokens=12)
    assert (loaded.cached, loaded.text) == (full(kept), expected)


@pytest.mark.parametrize("damage", [flip, cut, replace])
def test_damaged_manifest_fails_and_is_written_anew_when_kept_again(server, fresh, root, damage):
    kept = fresh()
    server.keep_durably(kept)
    evict(server, kept)
    damage(manifest_file(root, kept))
    assert server.use(kept, 7).status == 500
    assert failure(server, kept) == "damaged"
    assert server.keep_durably(kept).status == 200
    evict(server, kept)
    assert server.use(kept, 7).cached == full(kept)


# --- restarting


def test_killed_engine_loads_after_a_restart(server, fresh):
    kept = fresh(330)
    server.keep_durably(kept)
    expected = server.use(kept, 7, 8, max_tokens=12).text
    server.kill()
    server.start()
    loaded = server.use(kept, 7, 8, max_tokens=12)
    assert (loaded.cached, loaded.text) == (320, expected)
