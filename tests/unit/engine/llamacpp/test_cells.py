"""The accounting of the KV buffer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.engine.llamacpp.cells import NO_ROOM, Cells, Room


@pytest.mark.parametrize(
    ("room", "fits"),
    [(Room(10, 2), True), (Room(11, 1), False), (Room(1, 3), False), (NO_ROOM, True)],
)
def test_room_holds_what_fits_in_both_measures(room, fits):
    assert Room(10, 2).holds(room) is fits


def test_cells_are_all_free_at_first():
    assert Cells(Room(100, 4)).free == Room(100, 4)


def test_cells_reserved_are_not_free():
    cells = Cells(Room(100, 4))
    cells.reserve(Room(30, 1))
    assert cells.free == Room(70, 3)


def test_cells_given_back_are_free_again():
    cells = Cells(Room(100, 4))
    cells.reserve(Room(30, 1))
    cells.give_back(Room(30, 1))
    assert cells.free == Room(100, 4)


def test_cells_cannot_be_reserved_beyond_what_is_free():
    cells = Cells(Room(100, 4))
    cells.reserve(Room(80, 1))
    with pytest.raises(AssertionError):
        cells.reserve(Room(21, 1))


def test_cells_cannot_be_given_back_twice():
    cells = Cells(Room(100, 4))
    cells.reserve(Room(30, 1))
    cells.give_back(Room(30, 1))
    with pytest.raises(AssertionError):
        cells.give_back(Room(30, 1))


def test_cells_hand_out_every_sequence_id_once():
    cells = Cells(Room(100, 4))
    assert sorted(cells.take_id() for _ in range(4)) == [0, 1, 2, 3]


def test_cells_hand_out_a_returned_sequence_id_again():
    cells = Cells(Room(100, 2))
    taken = [cells.take_id(), cells.take_id()]
    cells.return_id(taken[0])
    assert cells.take_id() == taken[0]


def test_cells_refuse_a_sequence_id_that_is_back_already():
    cells = Cells(Room(100, 2))
    taken = cells.take_id()
    cells.return_id(taken)
    with pytest.raises(AssertionError):
        cells.return_id(taken)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=12), st.randoms())
def test_cells_are_all_free_when_everything_came_back(asked, random):
    cells, held = Cells(Room(100, 8)), []
    for room in (Room(*sizes) for sizes in asked):
        if cells.free.holds(room):
            cells.reserve(room)
            held.append(room)
    random.shuffle(held)
    for room in held:
        cells.give_back(room)
    assert cells.free == cells.total
