"""The store: what is held where, what makes way, and what must not."""

import pytest
from small_store import FILE, SIZE, SmallStore, look, payload_of, tokens_of

from mooring.core.errors import EngineFailed, StorageFull
from mooring.kvstore.match import Cut

PATH = tokens_of(1, 2, 3, 4, 5, 6, 7, 8, 9)  # two full blocks and a tail
OTHER = tokens_of(1, 2, 3, 4, 5, 9, 9, 9)  # shares the first block
FAR = tokens_of(7, 7, 7, 7)


def test_store_finds_in_ram_what_was_added(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.read(PATH) == ["ram"] * 3
        assert small.store.ram_bytes == 3 * SIZE
        assert small.store.disk_bytes == 0


def test_store_answers_for_ram_without_a_thread(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.store.fetch(small.store.match("tenant", PATH).blocks).done()


def test_store_shares_a_common_beginning(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.store.missing("tenant", OTHER) == [Cut(4, 8)]
        small.add(OTHER)
        assert small.store.blocks == 4


def test_store_uses_a_block_in_part(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        match = small.store.match("tenant", OTHER)
        assert match.tokens == 5
        assert (match.blocks[-1].start, match.blocks[-1].used, match.blocks[-1].end) == (4, 5, 8)


def test_store_finds_nothing_in_another_scope(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.store.match("another tenant", PATH).blocks == ()


def test_store_replaces_a_tail_by_what_extends_it(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        small.add(PATH + tokens_of(10, 11))
        assert small.store.blocks == 3
        assert small.matched(PATH) == 9


def test_store_keeps_a_pinned_tail_beside_what_extends_it(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        small.add(PATH + tokens_of(10, 11))
        assert small.store.blocks == 4


def test_store_takes_no_block_whose_beginning_is_not_held(tmp_path):
    with SmallStore(tmp_path) as small:
        small.store.add("tenant", PATH, Cut(4, 8), payload_of("tenant", PATH[:32]))
        assert small.store.blocks == 0


def test_store_holds_once_what_is_added_twice(tmp_path):
    with SmallStore(tmp_path) as small:
        for _ in range(2):
            small.store.add("tenant", PATH, Cut(0, 4), payload_of("tenant", PATH[:16]))
        assert small.store.ram_bytes == SIZE


def test_store_spills_to_disk_what_ram_has_no_room_for(tmp_path):
    with SmallStore(tmp_path, ram_bytes=2 * SIZE) as small:
        small.add(PATH)
        small.settle()
        assert small.store.ram_bytes == 2 * SIZE
        assert sorted(small.read(PATH)) == ["disk", "ram", "ram"]


def test_store_reads_at_once_what_is_still_on_its_way_to_disk(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        assert small.read(PATH) == ["ram"] * 3
        small.settle()
        assert small.store.ram_bytes == 0
        assert small.read(PATH) == ["disk"] * 3


def test_store_spills_a_block_after_those_before_it(tmp_path):
    with SmallStore(tmp_path, ram_bytes=2 * SIZE) as small:
        small.add(PATH)
        small.settle()
    with SmallStore(tmp_path) as small:
        assert small.matched(PATH) == 9


def test_store_drops_what_would_wait_for_the_disk_beyond_the_bound(tmp_path):
    with SmallStore(tmp_path, ram_bytes=SIZE, spill_bytes=SIZE) as small:
        small.add(tokens_of(*range(40)))
        assert small.store.ram_bytes <= 2 * SIZE
        small.settle()


def test_store_without_disk_budget_lets_the_oldest_go(tmp_path):
    with SmallStore(tmp_path, ram_bytes=2 * SIZE, disk_bytes=0, policy="lru") as small:
        for number in range(3):
            small.add(tokens_of(*[number] * 4))
        assert [small.matched(tokens_of(*[n] * 4)) for n in range(3)] == [0, 4, 4]
        assert small.store.disk_bytes == 0


def test_store_counts_a_fetch_as_use(tmp_path):
    with SmallStore(tmp_path, ram_bytes=2 * SIZE, disk_bytes=0, policy="lru") as small:
        small.add(tokens_of(0, 0, 0, 0))
        small.add(tokens_of(1, 1, 1, 1))
        small.read(tokens_of(0, 0, 0, 0))
        small.add(tokens_of(2, 2, 2, 2))
        assert [small.matched(tokens_of(*[n] * 4)) for n in range(3)] == [4, 0, 4]


def test_store_counts_a_touch_as_use(tmp_path):
    with SmallStore(tmp_path, ram_bytes=2 * SIZE, disk_bytes=0, policy="lru") as small:
        small.add(tokens_of(0, 0, 0, 0))
        small.add(tokens_of(1, 1, 1, 1))
        small.store.touch(small.store.match("tenant", tokens_of(0, 0, 0, 0)).blocks)
        small.add(tokens_of(2, 2, 2, 2))
        assert [small.matched(tokens_of(*[n] * 4)) for n in range(3)] == [4, 0, 4]


def test_store_makes_room_on_disk_by_what_is_worth_less(tmp_path):
    with SmallStore(tmp_path, ram_bytes=SIZE, disk_bytes=2 * FILE, policy="lru") as small:
        for number in range(5):
            small.add(tokens_of(*[number] * 4))
            small.settle()
        assert [small.matched(tokens_of(*[n] * 4)) for n in range(5)] == [0, 0, 4, 4, 4]
        assert small.store.disk_bytes == 2 * FILE
        assert len(small.names()) == 2


def test_store_promotes_what_it_read_from_disk(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        assert small.read(PATH) == ["disk"] * 3
        small.settle()
        assert small.read(PATH) == ["ram"] * 3


def test_store_promotes_no_more_than_ram_can_hold(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
    with SmallStore(tmp_path, ram_bytes=2 * SIZE) as small:
        for _ in range(2):
            assert small.read(PATH).count("none") == 0
            small.settle()
            assert small.store.ram_bytes == 2 * SIZE


def test_store_keeps_a_pinned_path_through_a_restart(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        assert small.store.kept("p")
        assert small.store.pinned_bytes == 3 * FILE
    with SmallStore(tmp_path) as small:
        assert small.store.kept("p")
        assert small.store.missing("tenant", PATH) == []
        assert small.store.pinned_bytes == small.store.disk_bytes == 3 * FILE
        assert small.read(PATH) == ["disk"] * 3


def test_store_completes_a_pin_in_poll(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        future = small.store.pin("p", "tenant", PATH)
        small.hands.run()
        assert small.wakes > 0
        assert not future.done()
        assert small.store.keeping("p")
        assert not small.store.kept("p")
        small.store.poll()
        assert future.result(timeout=0) is None
        assert not small.store.keeping("p")


def test_store_pins_twice_as_once(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        futures = [small.store.pin("p", "tenant", PATH) for _ in range(2)]
        small.settle()
        futures.append(small.store.pin("p", "tenant", PATH))
        small.settle()
        assert [future.result(timeout=0) for future in futures] == [None] * 3
        small.store.release("p")
        small.settle()
        assert small.store.blocks == 0


def test_store_pins_nothing_that_is_not_held(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert isinstance(small.pin(PATH + tokens_of(10)), EngineFailed)
        assert not small.store.kept("p")


def test_store_pins_by_the_longer_block_that_covers_the_tail(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH + tokens_of(10, 11))
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        assert small.matched(PATH) == 9


def test_store_never_evicts_from_disk_what_is_pinned(tmp_path):
    with SmallStore(tmp_path, ram_bytes=SIZE, disk_bytes=3 * FILE) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        for number in range(10, 20):
            small.add(tokens_of(*[number] * 4))
            small.settle()
        assert small.read(PATH).count("none") == 0
        assert small.store.disk_bytes == 3 * FILE


def test_store_makes_automatic_blocks_give_way_to_a_pin(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0, disk_bytes=3 * FILE) as small:
        for number in range(10, 13):
            small.add(tokens_of(*[number] * 4))
            small.settle()
        assert small.store.disk_bytes == 3 * FILE
        small.add(PATH)
        assert small.pin(PATH) is None
        assert small.matched(tokens_of(10, 10, 10, 10)) == 0


def test_store_refuses_a_pin_that_the_disk_budget_cannot_hold(tmp_path):
    with SmallStore(tmp_path, disk_bytes=2 * FILE) as small:
        small.add(PATH)
        error = small.pin(PATH)
        assert isinstance(error, StorageFull)
        assert "no room on disk" in error.message
        assert not small.store.kept("p")
        assert small.store.pinned_bytes == 0
        assert small.matched(PATH) == 9


@pytest.mark.parametrize(("size_bytes", "fits"), [(FILE, True), (FILE + 1, False)])
def test_store_has_room_for_what_pins_leave_of_the_budget(tmp_path, size_bytes, fits):
    with SmallStore(tmp_path, ram_bytes=0, disk_bytes=4 * FILE) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        small.add(FAR)
        small.settle()
        assert small.store.disk_bytes == 4 * FILE
        assert small.store.room_for(size_bytes) is fits


def test_store_has_no_room_for_more_than_the_file_system(tmp_path):
    with SmallStore(tmp_path) as small:
        assert small.store.room_for(1)
        assert not small.store.room_for(1 << 60)


def test_store_has_no_room_in_the_reserve(tmp_path):
    with SmallStore(tmp_path, disk_reserve_bytes=1 << 60) as small:
        assert not small.store.room_for(1)
        small.add(PATH)
        assert isinstance(small.pin(PATH), StorageFull)


def test_store_drops_from_all_tiers_what_is_released(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        small.store.release("p")
        small.settle()
        assert (small.store.blocks, small.store.ram_bytes, small.store.disk_bytes) == (0, 0, 0)
        assert small.names() == set()
    with SmallStore(tmp_path) as small:
        assert small.store.blocks == 0
        assert not small.store.kept("p")


def test_store_keeps_of_a_released_path_what_others_need(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        small.add(OTHER)
        assert small.pin(PATH, "p") is None
        assert small.pin(OTHER, "q") is None
        small.store.release("p")
        small.settle()
        assert small.store.blocks == 2
        assert small.store.kept("q")
        assert small.matched(OTHER) == 8


def test_store_remembers_a_release_whose_blocks_stay(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH[:16], "p") is None
        assert small.pin(PATH, "q") is None
        small.store.release("p")
        small.settle()
    with SmallStore(tmp_path) as small:
        assert not small.store.kept("p")
        assert small.store.kept("q")


def test_store_keeps_of_a_released_path_what_has_children(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH[:16])
        assert small.pin(PATH[:16]) is None
        small.add(PATH)
        small.store.release("p")
        small.settle()
        assert small.matched(PATH) == 9
        assert small.store.pinned_bytes == 0


def test_store_fails_a_pin_that_is_released_while_it_is_under_way(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        future = small.store.pin("p", "tenant", PATH)
        small.store.release("p")
        assert isinstance(future.exception(timeout=0), EngineFailed)
        small.settle()
        assert small.store.blocks == 0
        assert small.names() == set()
    with SmallStore(tmp_path) as small:
        assert not small.store.kept("p")


def test_store_pins_again_what_was_released_while_it_was_under_way(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        small.store.pin("p", "tenant", PATH)
        small.store.release("p")
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        assert small.store.kept("p")
        assert small.read(PATH) == ["disk"] * 3


def test_store_releases_an_unknown_id_without_complaint(tmp_path):
    with SmallStore(tmp_path) as small:
        small.store.release("nobody's")


def test_store_releases_all_but_what_is_named(tmp_path):
    with SmallStore(tmp_path) as small:
        for name, tokens in (("p", PATH), ("q", OTHER), ("r", FAR)):
            small.add(tokens)
            assert small.pin(tokens, name) is None
        small.store.release_all_but({"q", "unknown"})
        small.settle()
        assert [small.store.kept(name) for name in "pqr"] == [False, True, False]
        assert small.store.blocks == 2


def test_store_gives_nothing_for_a_block_that_left_between_match_and_fetch(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        blocks = small.store.match("tenant", PATH).blocks
        small.store.release("p")
        fetch = small.store.fetch(blocks)
        assert fetch.done()
        assert look(fetch, PATH) == ["none"] * 3


def test_store_reads_what_was_released_while_a_reader_had_it(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        fetch = small.store.fetch(small.store.match("tenant", PATH).blocks)
        small.hands.readers.run()
        small.store.release("p")
        small.settle()
        assert look(fetch, PATH) == ["disk"] * 3
        assert small.rejected == []


def test_store_does_not_evict_from_disk_what_is_being_read(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0, disk_bytes=FILE, policy="lru") as small:
        small.add(FAR)
        small.settle()
        fetch = small.store.fetch(small.store.match("tenant", FAR).blocks)
        small.add(tokens_of(8, 8, 8, 8))
        small.store.poll()
        small.hands.writer.run()
        small.settle()
        assert look(fetch, FAR) == ["disk"]


def test_store_forgets_a_cancelled_fetch(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        fetch = small.store.fetch(small.store.match("tenant", PATH).blocks)
        small.hands.readers.run(1)
        fetch.cancel()
        assert fetch.done()
        small.settle()
        assert look(fetch, PATH) == ["none"] * 3
        assert small.store.ram_bytes == 0
        assert not any(block.reads for block in small.store._tree)


def test_store_remembers_uses_through_a_restart(tmp_path):
    paths = [tokens_of(*[number] * 4) for number in range(3)]
    with SmallStore(tmp_path, ram_bytes=0, policy="lru") as small:
        for path in paths:
            small.add(path)
        small.settle()
        small.read(paths[0])
        small.settle()
    with SmallStore(tmp_path, ram_bytes=0, disk_bytes=2 * FILE, policy="lru") as small:
        assert [small.matched(path) for path in paths] == [4, 0, 4]


def test_store_drops_at_start_what_another_model_left(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
    with SmallStore(tmp_path, fingerprint="another") as small:
        assert small.store.blocks == 0
        assert not small.store.kept("p")
        small.settle()
        assert small.names() == set()


def test_store_of_whole_paths_uses_the_longest_one(tmp_path):
    with SmallStore(tmp_path, step=None) as small:
        small.add(PATH[:20])
        small.add(PATH)
        assert small.store.match("tenant", PATH[:32]).tokens == 5
        assert small.matched(PATH + PATH) == 9
        assert small.read(PATH) == ["ram"]
        assert small.pin(PATH) is None
    with SmallStore(tmp_path, step=None) as small:
        assert small.read(PATH) == ["disk"]


def test_store_estimates_reading_from_ram_as_faster_than_from_disk(tmp_path):
    with SmallStore(tmp_path) as small:
        small.add(PATH)
        in_ram = small.store.seconds_to_read(small.store.match("tenant", PATH).blocks)
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        on_disk = small.store.seconds_to_read(small.store.match("tenant", PATH).blocks)
        assert 0 < in_ram < on_disk
