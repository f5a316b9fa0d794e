"""Tree and store against a naive model: a dictionary of paths to what was put there."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
from by_hand import Hands
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from mooring.config import KvStoreConfig
from mooring.core.errors import EngineFailed, StorageFull
from mooring.core.prefix import pack
from mooring.kvstore.match import Cut
from mooring.kvstore.store import KvStore

STEP = 3
SCOPES = st.sampled_from(["one", "other"])
TOKENS = st.lists(st.integers(0, 2), max_size=4 * STEP).map(lambda few: pack(tuple(few)))
NAMES = st.sampled_from(["p", "q", "r"])


def payload_of(scope, path, start):
    """Bytes that no other block has; their number differs too."""
    digest = hashlib.sha256(f"{scope}/{path.hex()}/{start}".encode()).digest()
    return np.frombuffer(digest * 20, np.uint8)[: 400 + digest[0]]


def common(a, b):
    shared = 0
    while a[4 * shared : 4 * shared + 4] == b[4 * shared : 4 * shared + 4] != b"":
        shared += 1
    return shared


class StoreMachine(RuleBasedStateMachine):
    """Small blocks, few tokens: paths meet, part and cover each other all the time."""

    step: int | None = STEP
    fetches = Bundle("fetches")

    @initialize(
        ram=st.sampled_from([0, 1000, 3000, 1 << 20]),
        disk=st.sampled_from([0, 20_000, 60_000, None]),
        spill=st.sampled_from([0, 1000, 1 << 20]),
        policy=st.sampled_from(["reuse", "lru"]),
    )
    def start(self, ram, disk, spill, policy):
        self.root = Path(tempfile.mkdtemp(prefix="mooring-store-"))
        self.config = KvStoreConfig(ram_bytes=ram, disk_bytes=disk, disk_reserve_bytes=0, policy=policy)
        self.spill = spill
        self.roomy = ram == 1 << 20
        self.put = {}
        self.held = set()
        self.pins = {}
        self.pinning = {}
        self.damaged = False
        self.open()

    def open(self):
        self.hands = Hands()
        self.rejected = []
        self.store = KvStore(
            self.root,
            "fingerprint",
            self.config,
            block_tokens=self.step,
            spill_bytes=self.spill,
            threads=self.hands,
            on_rejected=self.rejected.append,
        )

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root)

    # The naive side

    def cuts(self, tokens):
        end = len(tokens) // 4
        step = self.step or max(end, 1)
        return [Cut(start, min(start + step, end)) for start in range(0, end, step)]

    def naive_missing(self, scope, tokens):
        def covered(cut):
            path = tokens[: 4 * cut.end]
            return any(
                s == scope and start == cut.start and (p == path or (self.step and p.startswith(path)))
                for s, p, start in self.held
            )

        return [cut for cut in self.cuts(tokens) if not covered(cut)]

    def naive_match(self, scope, tokens):
        best = 0
        for held_scope, path, start in self.held:
            if held_scope == scope:
                shared = common(path, tokens)
                whole = self.step is not None or shared == len(path) // 4
                if whole and shared > start:
                    best = max(best, shared)
        return best

    def resync(self):
        """What the store let go is its business, within limits: ask it which blocks it has."""
        now = {self.locate(block) for block in self.store._tree}
        assert now <= self.held
        self.held = now

    def locate(self, block):
        path, node = b"", block
        while node.parent is not None:
            path, node = node.label + path, node.parent
        scope = next(s for s, p, start in self.put if p == path and self.key(s, p, start) == block.key)
        return scope, path, block.start

    def key(self, scope, path, start):
        """Found by asking a store that holds nothing else."""
        return KEYS.setdefault((self.step, scope, path, start), self.ask_key(scope, path))

    def ask_key(self, scope, path):
        from mooring.kvstore.block import child_digest, root_digest

        digest = root_digest(scope)
        for cut in self.cuts(path):
            digest = child_digest(digest, path[4 * cut.start : 4 * cut.end])
        return digest.hex()

    # What can happen

    @rule(scope=SCOPES, tokens=TOKENS)
    def add_path(self, scope, tokens):
        for cut in self.store.missing(scope, tokens):
            self.add_block(scope, tokens, cut)

    @rule(scope=SCOPES, tokens=TOKENS, which=st.integers(0, 3))
    def add_one(self, scope, tokens, which):
        cuts = self.cuts(tokens)
        if which < len(cuts):
            self.add_block(scope, tokens, cuts[which])

    def add_block(self, scope, tokens, cut):
        path = tokens[: 4 * cut.end]
        self.resync()
        cut_path = (scope, path, cut.start)
        missing = self.naive_missing(scope, path)
        payload = payload_of(scope, path, cut.start)
        self.store.add(scope, tokens, cut, payload)
        if missing == [cut]:
            self.put[cut_path] = payload
            self.held.add(cut_path)
        before = set(self.held)
        self.resync()
        if self.roomy:
            gone = before - self.held
            assert all(  # only tails that the new block covers
                s == scope and start == cut.start and path.startswith(p) and p != path
                for s, p, start in gone
            )
        self.store.check()

    @rule(scope=SCOPES, tokens=TOKENS)
    def ask(self, scope, tokens):
        match = self.store.match(scope, tokens)
        assert match.tokens == self.naive_match(scope, tokens)
        assert self.store.missing(scope, tokens) == self.naive_missing(scope, tokens)
        position = 0
        for stored in match.blocks:
            assert stored.start == position < stored.used <= stored.end
            position = stored.end
        assert match.tokens == (match.blocks[-1].used if match.blocks else 0)
        assert all(stored.used == stored.end for stored in match.blocks[:-1])
        assert self.store.seconds_to_read(match.blocks) >= 0

    @rule(target=fetches, scope=SCOPES, tokens=TOKENS, skip=st.integers(0, 2))
    def fetch(self, scope, tokens, skip):
        blocks = self.store.match(scope, tokens).blocks[skip:]
        return scope, tokens, self.store.fetch(blocks)

    @rule(fetched=fetches)
    def look(self, fetched):
        scope, _, fetch = fetched
        for index, stored in enumerate(fetch.blocks):
            payload = fetch.payload(index)
            if payload is not None:
                found = [
                    put
                    for (s, p, start), put in self.put.items()
                    if s == scope and self.key(s, p, start) == stored.key
                ]
                assert len(found) == 1
                assert np.array_equal(payload, found[0])
                assert fetch.tier(index) in ("ram", "disk")
            elif fetch.done() and not fetch.cancelled and not self.damaged:
                assert not self.roomy or stored.tier == "disk"

    @rule(fetched=fetches)
    def cancel(self, fetched):
        fetched[2].cancel()
        assert fetched[2].done()

    @rule(name=NAMES, scope=SCOPES, tokens=TOKENS)
    def pin(self, name, scope, tokens):
        if name in self.pins:
            scope, tokens = self.pins[name]
        future = self.store.pin(name, scope, tokens)
        if name not in self.pins and self.store.keeping(name):
            self.pins[name] = scope, tokens
        self.pinning.setdefault(name, []).append(future)

    @rule(name=NAMES)
    def release(self, name):
        self.store.release(name)
        self.pins.pop(name, None)
        assert not self.store.kept(name)
        assert not self.store.keeping(name)

    @rule(names=st.sets(NAMES))
    def release_all_but(self, names):
        self.store.release_all_but(names)
        self.pins = {name: pin for name, pin in self.pins.items() if name in names}

    @rule(count=st.integers(1, 3))
    def write(self, count):
        self.hands.writer.run(count)

    @rule(count=st.integers(1, 3))
    def read(self, count):
        self.hands.readers.run(count)

    @rule()
    def poll(self):
        self.store.poll()
        self.settle_futures()

    @rule()
    def settle(self):
        while self.hands.run() or self.store._answers.waiting:
            self.store.poll()
        self.store.poll()
        self.hands.run()
        self.store.poll()
        self.settle_futures()
        assert not any(future for futures in self.pinning.values() for future in futures)

    def settle_futures(self):
        for futures in self.pinning.values():
            for future in [future for future in futures if future.done()]:
                futures.remove(future)
                error = future.exception()
                assert error is None or isinstance(error, StorageFull | EngineFailed)
                if isinstance(error, StorageFull):
                    assert self.config.disk_bytes is not None
        self.pins = {
            name: pin
            for name, pin in self.pins.items()
            if self.store.kept(name) or self.store.keeping(name)
        }

    @rule()
    def restart(self):
        kept = {name for name in self.pins if self.store.kept(name)}
        self.resync()
        self.store.close()
        committed = {name for name in self.pins if self.store.kept(name)}
        assert kept <= committed or self.damaged
        self.open()
        self.pinning.clear()
        self.resync()
        if self.damaged:  # a pin whose file is gone is gone
            committed = {name for name in committed if self.store.kept(name)}
        self.pins = {name: self.pins[name] for name in committed}
        for name, (scope, tokens) in self.pins.items():
            assert self.store.kept(name)
            assert self.store.missing(scope, tokens) == []
        assert {name for name in ("p", "q", "r") if self.store.kept(name)} == committed

    @precondition(lambda self: any((self.root / "blocks").iterdir()))
    @rule(data=st.data())
    def damage(self, data):
        files = sorted((self.root / "blocks").glob("*.kv"))
        if not files:
            return
        path = data.draw(st.sampled_from(files))
        how = data.draw(st.sampled_from(["flip", "cut", "remove"]))
        content = path.read_bytes()
        path.unlink()  # what is mapped stays as it was
        if how == "flip":
            at = data.draw(st.integers(0, len(content) - 1))
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        self.damaged = True

    @invariant()
    def whole(self):
        if not hasattr(self, "store"):
            return
        self.store.check()
        self.resync()
        for name, (scope, tokens) in self.pins.items():
            if self.store.kept(name) or self.store.keeping(name):
                assert self.store.missing(scope, tokens) == []
            else:
                assert self.damaged or self.config.disk_bytes is not None
        assert self.store.disk_bytes >= self.store.pinned_bytes
        budget = self.config.disk_bytes
        assert budget is None or self.store.disk_bytes <= budget
        assert self.store.blocks == len(self.held)


class WholePrefixMachine(StoreMachine):
    """Models whose sequences cannot be cut."""

    step = None


KEYS: dict = {}
CASES = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStore = StoreMachine.TestCase
TestStore.settings = CASES
TestWholePrefixes = WholePrefixMachine.TestCase
TestWholePrefixes.settings = CASES
