"""Files of blocks: whole and our own, or refused with the reason."""

import json
import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mooring.kvstore.codec import (
    PAYLOAD_START,
    Description,
    Rejected,
    Rejection,
    checksum,
    decode,
    encode,
)

FINGERPRINT, KEY, PARENT = "f" * 32, "a" * 32, "b" * 32
PAYLOAD = bytes(range(200))
HEAD = struct.Struct("<8sQQ")


def describe(payload=PAYLOAD, *, fingerprint=FINGERPRINT, key=KEY, tokens=7):
    return Description(fingerprint, key, PARENT, tokens, len(payload), checksum(memoryview(payload)))


def write_file(payload=PAYLOAD, **described):
    return encode(describe(payload, **described)) + payload


def rejection(data, *, fingerprint=FINGERPRINT, key=KEY):
    with pytest.raises(Rejected) as caught:
        decode(memoryview(data), fingerprint=fingerprint, key=key)
    return caught.value.reason


FILE = write_file()
DESCRIPTION_END = HEAD.size + HEAD.unpack_from(FILE)[1]


def flip(data, position, bits):
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


@given(st.binary(max_size=300), st.integers(1, 10**6))
def test_codec_reads_what_it_wrote(payload, tokens):
    description = describe(payload, tokens=tokens)
    data = encode(description) + payload
    assert decode(memoryview(data), fingerprint=FINGERPRINT, key=KEY) == description


def test_codec_begins_the_payload_on_a_page():
    assert len(encode(describe())) == PAYLOAD_START == 4096


@given(st.integers(0, 7), st.integers(1, 255))
def test_codec_calls_another_magic_or_version_foreign(position, bits):
    assert rejection(flip(FILE, position, bits)) is Rejection.FOREIGN


@given(st.integers(8, DESCRIPTION_END - 1), st.integers(1, 255))
def test_codec_calls_a_changed_byte_of_the_description_corrupt(position, bits):
    assert rejection(flip(FILE, position, bits)) is Rejection.CORRUPT


@given(st.integers(DESCRIPTION_END, PAYLOAD_START - 1), st.integers(1, 255))
def test_codec_calls_a_changed_byte_of_the_padding_corrupt(position, bits):
    assert rejection(flip(FILE, position, bits)) is Rejection.CORRUPT


@given(st.integers(PAYLOAD_START, len(FILE) - 1), st.integers(1, 255))
def test_codec_calls_a_changed_byte_of_the_payload_corrupt(position, bits):
    assert rejection(flip(FILE, position, bits)) is Rejection.CORRUPT


@given(st.integers(0, len(FILE) - 1))
def test_codec_calls_a_file_cut_anywhere_truncated(length):
    assert rejection(FILE[:length]) is Rejection.TRUNCATED


@given(st.binary(min_size=1, max_size=8))
def test_codec_calls_a_file_with_bytes_behind_it_truncated(behind):
    assert rejection(FILE + behind) is Rejection.TRUNCATED


@given(st.text(max_size=40).filter(lambda text: text != FINGERPRINT))
def test_codec_calls_another_fingerprint_foreign(fingerprint):
    assert rejection(FILE, fingerprint=fingerprint) is Rejection.FOREIGN


@given(st.text(max_size=70).filter(lambda text: text != KEY))
def test_codec_calls_another_key_foreign(key):
    assert rejection(FILE, key=key) is Rejection.FOREIGN


@given(st.binary(max_size=40).filter(lambda beginning: not beginning.startswith(FILE[:8])))
def test_codec_calls_any_other_file_foreign(beginning):
    assert rejection(beginning.ljust(PAYLOAD_START, b"\xff")) is Rejection.FOREIGN


KNOWN = {"fingerprint": FINGERPRINT, "key": KEY, "parent": PARENT, "tokens": 7, "payload_bytes": 0}


@pytest.mark.parametrize(
    "text", [b"", b"no JSON", b"\xff", b"[]", b"3", b"{}", json.dumps(KNOWN | {"more": 1}).encode()]
)
def test_codec_calls_a_description_it_cannot_read_corrupt(text):
    """Its checksum is right: somebody else's writer, or a format of the future."""
    head = HEAD.pack(FILE[:8], len(text), xxhash.xxh3_64_intdigest(text))
    data = (head + text).ljust(PAYLOAD_START, b"\x00") + PAYLOAD
    assert rejection(data) is Rejection.CORRUPT


@pytest.mark.parametrize("length", [PAYLOAD_START - HEAD.size + 1, PAYLOAD_START, 2**63, 2**64 - 1])
def test_codec_calls_a_description_longer_than_its_room_corrupt(length):
    head = HEAD.pack(FILE[:8], length, HEAD.unpack_from(FILE)[2])
    assert rejection(head + FILE[HEAD.size :]) is Rejection.CORRUPT
