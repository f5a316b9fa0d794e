"""The account of the KV buffer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.llamacpp.cells import Cells, Room

NOTHING = b""


@pytest.mark.parametrize(
    ("room", "fits"),
    [(Room(10, 2), True), (Room(11, 1), False), (Room(1, 3), False), (Room(0, 0), True)],
)
def test_room_holds_what_fits_in_both_measures(room, fits):
    assert Room(10, 2).holds(room) is fits


def test_cells_are_all_free_at_first():
    assert Cells(Room(100, 4)).free == Room(100, 4)


def test_cells_of_an_open_sequence_are_promised_before_they_are_taken():
    cells = Cells(Room(100, 4))
    sequence = cells.open("a", NOTHING, 30)
    assert cells.free == Room(70, 3)
    assert (cells.used, cells.held) == (30, 0)
    sequence.done = 20
    assert (cells.used, cells.held) == (30, 20)


def test_cells_that_are_shared_count_once():
    cells = Cells(Room(100, 4))
    first = cells.open("a", NOTHING, 40)
    cells.open("a", NOTHING, 60, first, 30)
    cells.open("a", NOTHING, 35, first, 30)
    assert cells.free == Room(100 - 40 - 30 - 5, 1)


def test_cells_that_others_share_stay_promised_when_the_source_leaves():
    cells = Cells(Room(100, 4))
    first = cells.open("a", NOTHING, 40)
    second = cells.open("a", NOTHING, 60, first, 30)
    cells.close(first)
    assert cells.used == 60  # what it shared, and its own
    cells.close(second)
    assert cells.free == cells.total


def test_cells_are_shared_through_several_sequences():
    cells = Cells(Room(100, 4))
    system = cells.open("a", NOTHING, 20)
    turn = cells.open("a", NOTHING, 50, system, 20)
    cells.close(system)
    answer = cells.open("a", NOTHING, 70, turn, 45)
    assert cells.used == 75
    cells.close(turn)
    assert cells.used == 70
    cells.close(answer)
    assert cells.used == 0


def test_cells_that_a_sequence_will_not_need_are_given_back():
    cells = Cells(Room(100, 4))
    sequence = cells.open("a", NOTHING, 80)
    sequence.done = 15
    cells.shrink(sequence, 15)
    assert cells.free == Room(85, 3)


def test_cells_are_not_given_beyond_what_is_free():
    cells = Cells(Room(100, 4))
    cells.open("a", NOTHING, 80)
    with pytest.raises(AssertionError):
        cells.open("a", NOTHING, 21)


def test_cells_have_one_sequence_for_each_id():
    cells = Cells(Room(100, 3))
    opened = [cells.open("a", NOTHING, 1) for _ in range(3)]
    assert sorted(sequence.id for sequence in opened) == [0, 1, 2]
    with pytest.raises(AssertionError):
        cells.open("a", NOTHING, 1)
    cells.close(opened[1])
    assert cells.open("a", NOTHING, 1).id == opened[1].id


@given(st.data())
def test_cells_count_what_a_set_of_positions_would(data):
    """Against a model: each sequence is the list of the cells that it runs through."""
    cells, model, fresh = Cells(Room(300, 6)), {}, iter(range(10_000))
    for _ in range(data.draw(st.integers(1, 25))):
        if model and data.draw(st.booleans()):
            sequence = data.draw(st.sampled_from(list(model)))
            cells.close(sequence)
            del model[sequence]
        else:
            source = data.draw(st.sampled_from([None, *model]))
            share = data.draw(st.integers(0, 0 if source is None else len(model[source])))
            own = data.draw(st.integers(0 if share else 1, 30))
            if not cells.free.holds(Room(own, 1)):
                continue
            sequence = cells.open("a", NOTHING, share + own, source if share else None, share)
            begun = model[source][:share] if source is not None else []
            model[sequence] = [*begun, *(next(fresh) for _ in range(own))]
        cells.check()
        assert cells.used == len({cell for held in model.values() for cell in held})
