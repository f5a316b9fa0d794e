"""Counting what is long gone."""

from hashlib import blake2b

from mooring.kvstore import sketch
from mooring.kvstore.sketch import Sketch


def digest(number):
    return blake2b(str(number).encode(), digest_size=16).digest()


def test_sketch_counts():
    counts = Sketch()
    assert [counts.see(digest(1)) for _ in range(3)] == [1, 2, 3]
    assert counts.count(digest(1)) == 3
    assert counts.count(digest(2)) == 0


def test_sketch_never_counts_too_little_and_hardly_ever_too_much():
    counts = Sketch()
    for number in range(100_000):
        counts.see(digest(number))
    found = [counts.count(digest(number)) for number in range(100_000)]
    assert min(found) == 1
    assert sum(count > 1 for count in found) < 1000
    assert sum(counts.count(digest(-number)) > 0 for number in range(1, 10_001)) < 100


def test_sketch_takes_over_what_a_former_process_counted():
    counts = Sketch()
    assert counts.see(digest(1), times=7) == 7
    assert counts.see(digest(1)) == 8


def test_sketch_does_not_overflow():
    counts = Sketch()
    assert [counts.see(digest(1)) for _ in range(300)][-1] == 255


def test_sketch_forgets_what_is_rare(monkeypatch):
    monkeypatch.setattr(sketch, "_HALVE_AFTER", 10)
    counts = Sketch()
    counts.see(digest("rare"))
    for _ in range(9):
        counts.see(digest("frequent"))
    assert counts.count(digest("rare")) == 0
    assert counts.count(digest("frequent")) == 4
