"""Tokens' bytes to text: whole characters, and nothing of a stop string."""

import codecs
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from mooring.engine.text import TextStream

ALPHABET = "ab\n é€😀"  # one to four bytes a character, few enough for stops to be met
NARROW = st.text(alphabet=ALPHABET, max_size=24)
ANY = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=24)
STOPS = st.lists(st.text(alphabet=ALPHABET, min_size=1, max_size=4), max_size=3).map(tuple)
CUTS = st.lists(st.integers(0, 100), max_size=30)


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    """The data in pieces, some of them empty, cut anywhere: inside characters too."""
    edges = sorted([0, len(data), *(min(position, len(data)) for position in positions)])
    return [data[start:end] for start, end in pairwise(edges)]


def send(pieces: list[bytes], stops: tuple[str, ...]) -> list[str]:
    """What a client receives, delta by delta."""
    stream, sent = TextStream(stops), []
    for piece in pieces:
        sent.append(stream.push(piece))
        if stream.stopped:
            return sent
    return [*sent, stream.finish()]


def reference(pieces: list[bytes], stops: tuple[str, ...]) -> str:
    """All text so far, searched from its start after every piece."""
    data = b""
    for piece in pieces:
        data += piece
        text = codecs.getincrementaldecoder("utf-8")().decode(data)  # waits for whole characters
        hits = [text.find(stop) for stop in stops if stop in text]
        if hits:
            return text[: min(hits)]
    return text


@given(text=NARROW, cuts=CUTS, stops=STOPS)
@example(text="aab", cuts=[1, 2], stops=("ab",))
@example(text="ab😀é", cuts=[], stops=("é", "b"))
@example(text="ababé", cuts=[1, 2, 3, 4, 5], stops=("abé", "babb"))
def test_stream_sends_the_text_before_the_earliest_stop(text, cuts, stops):
    pieces = cut(text.encode(), cuts)
    assert "".join(send(pieces, stops)) == reference(pieces, stops)


@given(text=ANY, cuts=CUTS)
def test_stream_sends_any_text_unchanged_wherever_it_is_cut(text, cuts):
    assert "".join(send(cut(text.encode(), cuts), ())) == text


@given(text=ANY, cuts=CUTS)
def test_stream_never_sends_a_replacement_character_for_valid_text(text, cuts):
    assert not any("\ufffd" in delta for delta in send(cut(text.encode(), cuts), ()))


@given(text=NARROW, cuts=CUTS)
def test_stream_drops_half_a_character_at_the_end(text, cuts):
    pieces = cut(text.encode() + "😀".encode()[:3], cuts)
    assert "".join(send(pieces, ())) == text


def test_stream_replaces_bytes_that_can_never_become_a_character():
    assert "".join(send([b"a\xff", b"b"], ())) == "a\ufffdb"


def test_stream_holds_back_what_may_become_a_stop():
    assert TextStream(("END",)).push(b"the EN") == "the "


def test_stream_sends_at_once_what_cannot_become_a_stop():
    assert TextStream(("END",)).push(b"the end") == "the end"


def test_stream_sends_what_it_held_back_when_no_stop_followed():
    stream = TextStream(("END",))
    assert [stream.push(b"E"), stream.push(b"N"), stream.push(b"T")] == ["", "", "ENT"]


def test_stream_sends_what_it_held_back_at_the_end():
    stream = TextStream(("END",))
    stream.push(b"the EN")
    assert stream.finish() == "EN"


def test_stream_says_that_it_stopped():
    stream = TextStream(("END",))
    stream.push(b"E")
    assert not stream.stopped
    stream.push(b"ND")
    assert stream.stopped


def test_stream_sends_nothing_after_a_stop():
    stream = TextStream(("b",))
    assert stream.push(b"abc") == "a"
    assert stream.finish() == ""
