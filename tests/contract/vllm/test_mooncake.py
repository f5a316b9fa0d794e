"""The connector inside a real vLLM, with a real Mooncake as the shared tier."""

import pytest
from mooncake_cluster import MooncakeCluster
from vllm_server import BLOCK, VllmServer

NODE_BYTES = 20 << 20
CONTEXTS = 15
"""Of a thousand tokens, of about 1 MB each: so many at least fit into a node."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with MooncakeCluster(tmp_path_factory.mktemp("mooncake"), node_bytes=NODE_BYTES) as running:
        yield running


@pytest.fixture(scope="module")
def server(cluster, model_folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    settings = {
        "tier": "mooncake",
        "mooncake": cluster.settings(retry_s=8),
        "object_bytes": 300_000,
        "maintenance_s": 1,
        "strict": False,
    }
    with VllmServer(model_folder, log, settings) as running:
        yield running


def evict(server, *prefixes):
    server.order(release=[prefix.id for prefix in prefixes])
    server.thrash()


def test_context_is_loaded_from_the_store_and_deleted_from_it(server, fresh):
    kept = fresh(650)
    assert server.keep_durably(kept).report["tier"] == "mooncake"
    expected = server.use(kept, 7, max_tokens=12).text
    evict(server, kept)
    loaded = server.use(kept, 7, max_tokens=12)
    assert (loaded.cached, loaded.text) == (len(kept) // BLOCK * BLOCK, expected)
    server.order(release=[kept.id], delete=True)
    server.thrash()
    computed = server.use(kept, 7, max_tokens=12)  # not strict: it is computed, and said so
    assert (computed.status, computed.cached, computed.error) == (200, 0, "unknown")
    assert computed.text == expected


def test_full_store_is_told_and_what_was_kept_stays(server, fresh):
    kept, error = [], None
    for _ in range(2 * CONTEXTS):
        context = fresh(1000)
        reply = server.keep(context)
        server.wait_until_saved()
        reply = server.keep(context)
        if not reply.report["durable"]:
            error = reply.error
            break
        kept.append(context)
    assert error == "storage_full"
    assert len(kept) >= CONTEXTS
    evict(server, *kept)
    assert [server.use(context, 7).cached for context in kept] == [992] * len(kept)
    server.order(release_all_but=[], delete=True)


def test_context_survives_one_node_after_the_other(server, cluster, fresh):
    kept = fresh(650)
    server.keep_durably(kept)
    for _ in range(2):
        cluster.kill_node()
        cluster.add_node()
        evict(server, kept)
        assert server.use(kept, 7).cached == len(kept) // BLOCK * BLOCK
        cluster.wait_until_whole()
