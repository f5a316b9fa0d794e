"""Which tokens of whom go into the next batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.prefix import Prefix
from mooring.engine.interface import FinishReason, Generation, Sampling
from mooring.engine.llamacpp.binding import Batch
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.request import Choice, Request, Ticket
from mooring.engine.llamacpp.sequence import Sequence
from mooring.engine.llamacpp.step import DrawRow, FillRows, plan_step
from mooring.engine.text import TextStream

CAPACITY = 16


@pytest.fixture(scope="module")
def batch():
    made = Batch(CAPACITY)
    yield made
    made.close()


def make_request(*choices):
    request = Request(print, Generation((1, 2, 3), None, Sampling(9, choices=len(choices) or 1)))
    request.choices += choices
    return request


def make_choice(sequence, pending, position, finished=None):
    held = Sequence(sequence, None, b"", [], done=position)
    return Choice(0, held, None, TextStream(()), pending, finished=finished)


def make_fill(tokens, sequence=0, done=0, owner=None):
    """A fill of tokens sequence * 1000, sequence * 1000 + 1, ..., of which `done` are evaluated."""
    first = sequence * 1000
    held = Sequence(sequence, None, b"", [], done=done)
    return Fill(owner or make_request(), held, tuple(range(first, first + tokens)))


def make_prefix_fill(tokens, sequence=0, done=0):
    prefix = Prefix("tenant", tuple(range(tokens)))
    return make_fill(tokens, sequence, done, owner=Ticket(print, prefix))


def written(batch):
    """The batch's rows: (token, position, sequence, wants logits)."""
    native = batch.native
    return [
        (native.token[row], native.pos[row], native.seq_id[row][0], bool(native.logits[row]))
        for row in range(len(batch))
    ]


def shares(rows):
    """Which fill got how many tokens, by its sequence."""
    return {row.sequence.id: row.tokens for row in rows if isinstance(row, FillRows)}


def test_step_of_nobody_is_empty(batch):
    plan_step(batch, [], [make_fill(5)])
    assert plan_step(batch, [], []) == []
    assert len(batch) == 0


def test_step_takes_every_running_choices_next_token_first(batch):
    one = make_request(make_choice(3, 100, 40), make_choice(5, 101, 50))
    two = make_request(make_choice(7, 102, 60))
    rows = plan_step(batch, [one, two], [make_fill(2, sequence=1)])
    assert written(batch)[:3] == [(100, 40, 3, True), (101, 50, 5, True), (102, 60, 7, True)]
    assert [(row.owner, row.row) for row in rows[:3]] == [(one, 0), (one, 1), (two, 2)]
    assert [(row.sequence.id, row.sequence.done) for row in rows[:3]] == [(3, 40), (5, 50), (7, 60)]
    assert all(isinstance(row, DrawRow) for row in rows[:3])
    assert isinstance(rows[3], FillRows)


def test_step_passes_over_choices_that_are_finished(batch):
    done = make_choice(3, 100, 40, finished=FinishReason.STOP)
    rows = plan_step(batch, [make_request(done, make_choice(5, 101, 50))], [])
    assert written(batch) == [(101, 50, 5, True)]
    assert [row.sequence.id for row in rows] == [5]


def test_step_fills_what_is_left_with_a_chunk_of_the_prompt(batch):
    running = make_request(make_choice(3, 100, 40))
    fill = make_fill(100, sequence=2, done=30)
    draw, chunk = plan_step(batch, [running], [fill])
    assert len(batch) == CAPACITY
    assert written(batch)[1:] == [(2000 + at, at, 2, False) for at in range(30, 45)]
    assert draw.row == 0
    assert (chunk.owner, chunk.tokens, chunk.row) == (fill.owner, 15, 15)
    assert (chunk.sequence.id, chunk.sequence.done) == (2, 30)


def test_step_leaves_the_fill_as_it_is(batch):
    """A batch can fail, and is then planned again."""
    fill = make_fill(100)
    plan_step(batch, [], [fill])
    assert (fill.sequence.done, fill.remaining) == (0, 100)
    again = plan_step(batch, [], [fill])
    assert shares(again) == {0: CAPACITY}
    assert len(batch) == CAPACITY


def test_step_asks_for_logits_where_a_requests_prompt_ends(batch):
    plan_step(batch, [], [make_fill(20, sequence=1, done=15), make_fill(3, sequence=2)])
    wanted = [(token, position) for token, position, _, logits in written(batch) if logits]
    assert sorted(wanted) == [(1019, 19), (2002, 2)]


def test_step_asks_for_no_logits_inside_a_prompt(batch):
    plan_step(batch, [], [make_fill(CAPACITY + 1)])
    assert len(batch) == CAPACITY
    assert not any(logits for *_, logits in written(batch))


def test_step_asks_for_no_logits_of_a_prefix(batch):
    """Nothing is drawn from it; requests evaluate at least one token of their own."""
    (row,) = plan_step(batch, [], [make_prefix_fill(5)])
    assert row.row == 4
    assert not any(logits for *_, logits in written(batch))


def test_step_takes_a_prompt_that_just_fits_whole(batch):
    (row,) = plan_step(batch, [], [make_fill(CAPACITY)])
    assert (row.tokens, row.row) == (CAPACITY, CAPACITY - 1)
    assert [logits for *_, logits in written(batch)] == [False] * (CAPACITY - 1) + [True]


def test_step_gives_half_of_the_room_to_the_oldest_prompt(batch):
    fills = [make_fill(100, sequence=1), make_fill(100, sequence=2), make_fill(100, sequence=3)]
    assert shares(plan_step(batch, [], fills))[1] == CAPACITY // 2


def test_step_gives_the_other_half_to_the_shortest_prompts(batch):
    fills = [make_fill(99, sequence=1), make_fill(98, sequence=2), make_fill(5, sequence=3)]
    assert shares(plan_step(batch, [], fills)) == {1: 8, 3: 5, 2: 3}


def test_step_goes_by_what_remains_of_a_prompt(batch):
    fills = [make_fill(99, sequence=1), make_fill(20, sequence=2), make_fill(99, sequence=3, done=90)]
    assert shares(plan_step(batch, [], fills)) == {1: 8, 3: 8}


def test_step_gives_the_oldest_prompt_what_the_others_leave(batch):
    fills = [make_prefix_fill(100, sequence=1), make_fill(2, sequence=2), make_fill(3, sequence=3)]
    assert shares(plan_step(batch, [], fills)) == {1: 11, 2: 2, 3: 3}


def test_step_gives_the_others_what_the_oldest_prompt_leaves(batch):
    fills = [make_fill(2, sequence=1), make_fill(100, sequence=2)]
    assert shares(plan_step(batch, [], fills)) == {1: 2, 2: 14}


def test_step_gives_a_single_row_to_the_oldest_prompt(batch):
    running = make_request(*(make_choice(sequence, 1, 9) for sequence in range(CAPACITY - 1)))
    fills = [make_fill(5, sequence=20), make_fill(5, sequence=21)]
    assert shares(plan_step(batch, [running], fills)) == {20: 1}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=6),
    st.integers(0, CAPACITY - 1),
)
def test_step_uses_all_the_room_and_starves_nobody(prompts, choices):
    batch = Batch(CAPACITY)
    try:
        running = make_request(*(make_choice(100 + number, 1, 9) for number in range(choices)))
        fills = [
            (make_prefix_fill if is_prefix else make_fill)(tokens, sequence)
            for sequence, (tokens, is_prefix) in enumerate(prompts)
        ]
        rows = plan_step(batch, [running] if choices else [], fills)
        given_out, room = shares(rows), CAPACITY - choices
        chunks = [row for row in rows if isinstance(row, FillRows)]
        assert len(chunks) == len(given_out)  # at most one chunk of each
        assert all(0 < row.tokens <= row.fill.remaining for row in chunks)
        assert sum(given_out.values()) == min(room, sum(tokens for tokens, _ in prompts))
        if prompts:
            assert given_out[0] >= min(prompts[0][0], -(-room // 2))
        assert len(batch) == choices + sum(given_out.values())
        for row in chunks:
            own = [
                at
                for at, (_, _, sequence, _) in enumerate(written(batch))
                if sequence == row.sequence.id
            ]
            assert own == list(range(row.row - row.tokens + 1, row.row + 1))
            draws = row.tokens == row.fill.remaining and isinstance(row.owner, Request)
            logits = [written(batch)[at][3] for at in own]
            assert logits == [False] * (row.tokens - 1) + [draws]
    finally:
        batch.close()
