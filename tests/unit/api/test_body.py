"""Bodies that would do harm before anybody looks at them."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from mooring.api.body import parse_strictly

MAX_DEPTH, MAX_PARTS = 64, 100_000


def refusal(body):
    with pytest.raises(HTTPException) as caught:
        parse_strictly(body)
    assert caught.value.status_code == 400
    return caught.value.detail


def nested(depth, inside=""):
    return ("[" * depth + inside + "]" * depth).encode()


# Encoding


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1"])
def test_body_in_another_encoding_is_refused_or_no_json(encoding):
    """The standard library would guess it."""
    with pytest.raises((HTTPException, json.JSONDecodeError)):
        parse_strictly('{"a": "ü"}'.encode(encoding))


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b'"\xc3', b'"\xc0\xaf"', b'"\xf5\x80\x80\x80"'])
def test_body_that_is_not_utf8_is_refused(body):
    assert "the body is not UTF-8" in refusal(body)


@pytest.mark.parametrize("surrogate", [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"])
def test_body_with_a_surrogates_bytes_is_refused(surrogate):
    assert "the body is not UTF-8" in refusal(b'["' + surrogate + b'"]')


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud800"',
        '"\\uDBFF"',
        '"\\udc00"',
        '"\\uDFFF"',
        '"\\ude00\\ud83d"',
        '"\\ud83d \\ude00"',
        '"\\ud83d\\n\\ude00"',
        '"\\ud83d\\ud83d\\ude00"',
        '["\\ud83d", "\\ude00"]',
        '{"\\ud83d": 1}',
        '{"a": {"b": ["\\ud83d"]}}',
        '"\\\\\\ud83d"',
    ],
)
def test_body_with_half_a_surrogate_pair_is_refused(text):
    assert "half a surrogate pair" in refusal(text.encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\uD83D\\uDE00"', "😀"),
        ('"😀"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        ('{"\\ud83d\\ude00": "\\\\udfff"}', {"😀": "\\udfff"}),
        ('"\\u0000\\ufffe\\ue0f0"', "\0\ufffe\ue0f0"),
    ],
)
def test_body_with_whole_characters_is_read(text, value):
    assert parse_strictly(text.encode()) == value


def test_body_with_a_byte_order_mark_is_no_json():
    with pytest.raises(json.JSONDecodeError):
        parse_strictly(b"\xef\xbb\xbf{}")


# Numbers


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400 + ".0"])
@pytest.mark.parametrize("around", ["%s", "[%s]", '{"a": [0, %s]}'])
def test_body_with_a_number_that_json_does_not_know_is_refused(number, around):
    refusal((around % number).encode())


@pytest.mark.parametrize("digits", [4301, 100_000])
def test_body_with_an_endless_integer_is_refused(digits):
    with pytest.raises((HTTPException, json.JSONDecodeError)):
        parse_strictly(b'{"a": %s}' % (b"9" * digits))


def test_body_with_the_names_of_such_numbers_in_strings_is_read():
    assert parse_strictly(b'["NaN", "Infinity", "1e999"]') == ["NaN", "Infinity", "1e999"]


# Size


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("closing", ["", "]", "}"])
def test_body_that_is_nested_too_deep_is_refused(opening, closing):
    """Closed or not: it is refused before anything is built."""
    depth = MAX_DEPTH + 1
    body = opening * depth + "1" + closing * depth
    assert f"nested more than {MAX_DEPTH} levels" in refusal(body.encode())


def test_body_of_hundred_thousand_brackets_is_refused():
    assert "more than" in refusal(b"[" * 1_000_000)


def test_body_as_deep_as_is_allowed_is_read():
    value = parse_strictly(nested(MAX_DEPTH, "7"))
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == 7


def test_body_counts_depth_not_brackets():
    assert parse_strictly(b"[" + b",".join([nested(3)] * 500) + b"]") == [[[[]]]] * 500


def test_body_with_as_many_parts_as_are_allowed_is_read():
    assert len(parse_strictly(b"[" + b"0," * (MAX_PARTS - 1) + b"0]")) == MAX_PARTS


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"0," * MAX_PARTS + b"0]",
        b"[" + b"[]," * (MAX_PARTS // 2) + b"0]",
        b"[" + b"{}," * (MAX_PARTS // 2) + b"0]",
        b"{" + b'"a":0,' * MAX_PARTS + b'"a":0}',
        b"," * (MAX_PARTS + 1),
    ],
    ids=["elements", "lists", "objects", "members", "commas"],
)
def test_body_with_too_many_parts_is_refused(body):
    assert f"more than {MAX_PARTS}" in refusal(body)


# Strings


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1000,
        "{[" * 1000,
        "," * (MAX_PARTS + 1),
        '"[' * 200,
        '\\"' * 200 + "[" * 200,
        "\\" * 7 + "[" * 200,
        "\\" * 8 + '"' + "[" * 200,
        "\n\t[" * 200,
    ],
)
def test_body_with_brackets_inside_strings_is_read(text):
    assert parse_strictly(json.dumps([text, {text: text}]).encode()) == [text, {text: text}]


@pytest.mark.parametrize("before", ['"\\\\"', '"\\""', '"\\\\\\""', '""', '"a\\/\\""'])
def test_body_counts_brackets_that_follow_a_string(before):
    """However the string ends, it ends."""
    body = f"[{before},{'[' * 65}{']' * 65}]"
    assert "nested more than" in refusal(body.encode())


@pytest.mark.parametrize(
    "body",
    [
        b'"',
        b'["abc',
        b'["abc\\',
        b'["abc\\"',
        b'{"a',
        b'"' + b"\\" * 99_999,
        b'"' + b'\\"' * 100_000,
        b'"' * 100_001,
        b'["a\nb"]',
        b'"\\x"',
        b'"\\u12"',
        b"",
        b" ",
        b"{]",
        b"[1,]",
        b'{"a" 1}',
        b"nul",
        b"'a'",
        b"[1] 2",
        b"]" * 100,
        b"\x00",
    ],
)
def test_body_that_is_no_json_is_called_so(body):
    with pytest.raises(json.JSONDecodeError):
        parse_strictly(body)


# Any body

TEXT = st.text(max_size=12) | st.text(alphabet='[]{},:"\\ud8 9', max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_body_of_any_value_within_the_limits_is_read(value, ascii_only):
    assert parse_strictly(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


JSON_LIKE = st.lists(
    st.sampled_from(["[", "]", "{", "}", ",", ":", '"', "\\", "\\u", "d83d", "de00", "1", "e9", " "])
    | st.sampled_from(["true", "null", "NaN", "-Infinity", "\n", "\x00", "ü", "😀", "1e999"]),
    max_size=30,
).map(lambda parts: "".join(parts).encode())


@given(st.binary(max_size=60) | JSON_LIKE)
@example(b"9" * 5000)
@example(b"-" + b"9" * 5000)
@example(b"[" * 5000)
@example(b'{"a":' * 5000)
@example(b'"' + b"\\" * 5001)
def test_body_of_any_bytes_is_read_or_refused(body):
    """Refused in one of two ways, and what is read can be written out again."""
    try:
        value = parse_strictly(body)
    except (HTTPException, json.JSONDecodeError):
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
