"""Everything at the same time, for a while: no answer is wrong, and no block and no byte is lost."""

import http.client
import json
import random
import re
import threading
import time
import urllib.request

from vllm_server import BLOCK, HANG_S

WORKERS, ROUNDS = 4, 40


def used_share(server):
    """Of the device's blocks, as vLLM itself counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as reply:
        found = re.search(r"^vllm:kv_cache_usage_perc\{.*\} (\S+)$", reply.read().decode(), re.M)
    return float(found[1])


def go_away(server, prefix, order, delay_s):
    """Ask, and hang up."""
    orders = {order: prefix.id, "tokens": len(prefix), "lease_s": 60}
    body = {
        "model": "tiny",
        "prompt": [*prefix.tokens, 7],
        "max_tokens": 50,
        "ignore_eos": True,
        "stream": True,
        "cache_salt": prefix.scope,
        "kv_transfer_params": {"mooring": orders},
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    time.sleep(delay_s)
    connection.close()


class Work:
    """One client: what it does is drawn, and what it is told is checked."""

    def __init__(self, server, contexts, texts, seed):
        self.server, self.contexts, self.texts = server, contexts, texts
        self.random = random.Random(seed)
        self.wrong, self.counts = [], {"served": 0, "failed": 0}

    def run(self):
        for _ in range(ROUNDS):
            context = self.random.choice(self.contexts)
            act = self.random.choice(
                [self.use, self.use, self.use, self.keep, self.release, self.flood, self.leave]
            )
            act(context)

    def use(self, context):
        reply = self.server.use(context, 7, 8, max_tokens=6)
        if reply.status == 200:
            self.counts["served"] += 1
            if reply.text != self.texts[context.id] or reply.cached != len(context) // BLOCK * BLOCK:
                self.wrong.append((context.id, reply))
        else:
            self.counts["failed"] += 1  # somebody deleted it

    def keep(self, context):
        reply = self.server.keep(context)
        if reply.status != 200:
            self.counts["failed"] += 1

    def release(self, context):
        delete = self.random.random() < 0.3
        assert self.server.order(release=[context.id], delete=delete).status == 200

    def flood(self, _context):
        tokens = [self.random.randrange(5, 1000) for _ in range(self.random.randrange(100, 1000))]
        assert self.server.complete(tokens, max_tokens=4).status == 200

    def leave(self, context):
        go_away(self.server, context, self.random.choice(["use", "keep"]), self.random.random() * 0.05)


def test_nothing_is_wrong_or_lost_after_many_things_at_once(server, fresh, root):
    contexts = [fresh(count) for count in (200, 400, 600, 800, 1000)]
    texts = {}
    for context in contexts:
        texts[context.id] = server.complete((*context.tokens, 7, 8), salt="x", max_tokens=6).text
        server.keep_durably(context)
    work = [Work(server, contexts, texts, seed) for seed in range(WORKERS)]
    threads = [threading.Thread(target=one.run) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.wrong for one in work] == [[]] * WORKERS
    assert sum(one.counts["served"] for one in work) > WORKERS * ROUNDS / 10
    server.wait_until_saved()
    end = time.monotonic() + HANG_S
    assert server.order(release_all_but=[], delete=True).report["pinned_blocks"] == 0
    while used_share(server) > 0:  # requests that were left may still be ending
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [path.name for path in root.rglob("*.kv")] == []
