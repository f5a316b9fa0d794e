"""A store with blocks of four tokens and payloads of a thousand bytes, each told from all others."""

import hashlib

import numpy as np
from by_hand import Hands

from mooring.config import KvStoreConfig
from mooring.core.prefix import pack
from mooring.kvstore.store import KvStore

STEP, SIZE = 4, 1000
FILE = 4096 + SIZE


def tokens_of(*numbers):
    return pack(tuple(numbers))


def payload_of(scope, path, size_bytes=SIZE):
    """The bytes that belong to the block at the end of this path."""
    digest = hashlib.sha256(scope.encode() + b"/" + path).digest()
    return np.frombuffer(digest * (size_bytes // 32 + 1), np.uint8)[:size_bytes]


class SmallStore:
    """The real store over real files; its threads run when told to, unless `threads` are real ones."""

    def __init__(
        self, root, *, threads=None, fingerprint="fingerprint", step=STEP, spill_bytes=None, **config
    ):
        self.hands = threads or Hands()
        self.rejected = []
        self.wakes = 0
        config = {"ram_bytes": 1 << 20, "disk_reserve_bytes": 0} | config
        self.store = KvStore(
            root,
            fingerprint,
            KvStoreConfig(**config),
            block_tokens=step,
            spill_bytes=spill_bytes,
            threads=self.hands,
            wake=self._wake,
            on_rejected=self.rejected.append,
        )
        self.files = root / "blocks"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.store.check()
        self.store.close()

    def _wake(self):
        self.wakes += 1

    def add(self, tokens, scope="tenant"):
        for cut in self.store.missing(scope, tokens):
            self.store.add(scope, tokens, cut, payload_of(scope, tokens[: 4 * cut.end]))
            self.store.check()

    def settle(self):
        """Until nothing is under way."""
        for _ in range(100):
            self.store.poll()
            self.store.check()
            if not self.hands.run() and not self.store._answers.waiting:
                return
        raise AssertionError("there is no end of it")

    def read(self, tokens, scope="tenant"):
        """Fetch what matches; the tiers it came from, or "none" where it did not. Checks every byte."""
        fetch = self.store.fetch(self.store.match(scope, tokens).blocks)
        while not fetch.done():
            self.hands.run()
            self.store.poll()
            self.store.check()
        return look(fetch, tokens, scope)

    def pin(self, tokens, name="p", scope="tenant"):
        """Keep a path, held before, and wait; the error, if any."""
        future = self.store.pin(name, scope, tokens)
        self.settle()
        return future.exception(timeout=0)

    def matched(self, tokens, scope="tenant"):
        return self.store.match(scope, tokens).tokens

    def names(self):
        return {path.name for path in self.files.iterdir()}


def look(fetch, tokens, scope="tenant"):
    tiers = []
    for index, stored in enumerate(fetch.blocks):
        payload = fetch.payload(index)
        if payload is None:
            tiers.append("none")
        else:
            assert np.array_equal(payload, payload_of(scope, tokens[: 4 * stored.end]))
            tiers.append(fetch.tier(index))
    return tiers
