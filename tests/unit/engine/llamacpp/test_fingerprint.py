"""Which KV bytes are interchangeable, and how a model file's hash is remembered."""

import dataclasses
import json
import os

import pytest

from mooring.engine.llamacpp.binding import ContextShape
from mooring.engine.llamacpp.fingerprint import fingerprint
from mooring.engine.weights import hash_weights

SHAPE = ContextShape(
    cells=512, sequences=4, batch_tokens=64, kv_type="f16", flash_attention=False, threads=2
)


def write_model(tmp_path, data=b"weights", name="model.gguf"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def hash_and_reads(path, memory):
    """The hash, and whether the file was read for it."""
    shares = []
    found = hash_weights([path], memory, on_progress=shares.append)
    return found, bool(shares)


@pytest.mark.parametrize("change", [{"kv_type": "q8_0"}, {"flash_attention": True}])
def test_fingerprint_depends_on_how_kv_bytes_are_made(change):
    assert fingerprint("hash", SHAPE) != fingerprint("hash", dataclasses.replace(SHAPE, **change))


@pytest.mark.parametrize("change", [{"cells": 1024}, {"sequences": 8}, {"threads": 1}])
def test_fingerprint_does_not_depend_on_the_room(change):
    assert fingerprint("hash", SHAPE) == fingerprint("hash", dataclasses.replace(SHAPE, **change))


def test_fingerprint_depends_on_the_weights():
    assert fingerprint("hash", SHAPE) != fingerprint("other", SHAPE)


def test_hash_depends_on_the_content_alone(tmp_path):
    one = write_model(tmp_path, name="one.gguf")
    two = write_model(tmp_path, name="two.gguf")
    other = write_model(tmp_path, b"Weights", name="other.gguf")
    hashes = [hash_weights([path], tmp_path / f"{path.stem}.json") for path in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_hash_reports_the_share_that_is_read(tmp_path):
    shares = []
    path = write_model(tmp_path, bytes((1 << 22) * 2))
    hash_weights([path], tmp_path / "memory.json", on_progress=shares.append)
    assert shares == [0.5, 1.0]


def test_hash_is_remembered(tmp_path):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    first = hash_weights([path], memory)
    assert hash_and_reads(path, memory) == (first, False)


def test_hash_is_computed_again_when_the_size_changed(tmp_path):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    first, before = hash_weights([path], memory), path.stat()
    path.write_bytes(b"longer weights")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second, read = hash_and_reads(path, memory)
    assert read
    assert second != first


def test_hash_is_computed_again_when_the_modification_time_changed(tmp_path):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    first, before = hash_weights([path], memory), path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second, read = hash_and_reads(path, memory)
    assert read
    assert second != first


def test_hash_is_computed_again_for_another_file(tmp_path):
    one, memory = write_model(tmp_path), tmp_path / "memory.json"
    hash_weights([one], memory)
    two = write_model(tmp_path, name="other.gguf")
    os.utime(two, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    assert hash_and_reads(two, memory)[1]


def write_parts(tmp_path):
    """A model in two files."""
    return [write_model(tmp_path, data, f"{data.decode()}.gguf") for data in (b"first", b"second")]


def test_hash_covers_every_part(tmp_path):
    parts = write_parts(tmp_path)
    before = hash_weights(parts, tmp_path / "memory.json")
    parts[1].write_bytes(b"SECOND")
    assert hash_weights(parts, tmp_path / "another.json") != before


def test_hash_depends_on_the_order_of_the_parts(tmp_path):
    parts = write_parts(tmp_path)
    hashes = [hash_weights(parts[::step], tmp_path / f"{step}.json") for step in (1, -1)]
    assert hashes[0] != hashes[1]


def test_hash_of_one_file_is_not_that_of_its_parts_alone(tmp_path):
    parts = write_parts(tmp_path)
    alone = [hash_weights([part], tmp_path / f"{part.stem}.json") for part in parts]
    assert hash_weights(parts, tmp_path / "memory.json") not in alone


def test_hash_is_computed_again_when_a_later_part_changed(tmp_path):
    parts, memory = write_parts(tmp_path), tmp_path / "memory.json"
    first, before = hash_weights(parts, memory), parts[1].stat()
    parts[1].write_bytes(b"SECOND")
    os.utime(parts[1], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    shares = []
    second = hash_weights(parts, memory, on_progress=shares.append)
    assert shares
    assert second != first


def test_hash_is_computed_again_when_a_part_is_added(tmp_path):
    parts, memory = write_parts(tmp_path), tmp_path / "memory.json"
    assert hash_weights(parts[:1], memory) != hash_weights(parts, memory)


def test_hash_of_parts_is_remembered(tmp_path):
    parts, memory, shares = write_parts(tmp_path), tmp_path / "memory.json", []
    first = hash_weights(parts, memory)
    assert hash_weights(parts, memory, on_progress=shares.append) == first
    assert shares == []


def test_hash_reports_the_share_of_all_parts(tmp_path):
    parts = [write_model(tmp_path, bytes(1 << 22), f"{n}.gguf") for n in range(4)]
    shares = []
    hash_weights(parts, tmp_path / "memory.json", on_progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_hash_needs_no_memory_that_can_be_written(tmp_path):
    path = write_model(tmp_path)
    expected = hash_weights([path], tmp_path / "memory.json")
    assert hash_weights([path], tmp_path / "no folder" / "memory.json") == expected


BROKEN = [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{}", b'{"files": 3, "hash": "x"}']


@pytest.mark.parametrize("content", BROKEN)
def test_hash_survives_a_broken_memory(tmp_path, content):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    expected = hash_weights([path], memory)
    memory.write_bytes(content)
    assert hash_and_reads(path, memory) == (expected, True)


def test_hash_mends_a_broken_memory(tmp_path):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    memory.write_bytes(b"{")
    first = hash_weights([path], memory)
    assert hash_and_reads(path, memory) == (first, False)


def test_hash_is_not_taken_from_a_memory_of_another_form(tmp_path):
    path, memory = write_model(tmp_path), tmp_path / "memory.json"
    expected = hash_weights([path], memory)
    memory.write_text(json.dumps(json.loads(memory.read_text()) | {"hash": 7}))
    assert hash_and_reads(path, memory) == (expected, True)
