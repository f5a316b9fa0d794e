"""Text in the encodings that files come in."""

import codecs
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.extraction.encoding import NotText, decode

ENGLISH = "Keep the quay clear. The tide tables are in the annex.\r\n"
CHINESE = "港口规则:码头长四百米。所有船只必须在日落之前系泊。Tide tables are in the annex.\n"
TRADITIONAL = "港口規則:碼頭長四百米。所有船隻必須在日落之前繫泊。\n"
JAPANESE = "港の規則:岸壁の長さは四百メートルです。すべての船は日没までに係留しなければなりません。\n"
KOREAN = "항구 규칙: 부두의 길이는 사백 미터입니다. 모든 배는 일몰 전에 정박해야 합니다.\n"
RUSSIAN = "Правила гавани: длина причала четыреста метров.\n"
GERMAN = "Hafenordnung: Die Länge beträgt 400 m; größere Schiffe müssen außerhalb ankern. Schön.\n"
WRITTEN = [
    (ENGLISH, "ascii"),
    (CHINESE, "utf-8"),
    (CHINESE, "utf-8-sig"),
    (CHINESE, "utf-16"),
    (CHINESE, "utf-32"),
    (ENGLISH, "utf-16-le"),
    (ENGLISH, "utf-16-be"),
    (GERMAN, "utf-16-le"),
    (CHINESE, "gbk"),
    (CHINESE, "gb18030"),
    (TRADITIONAL, "big5"),
    (JAPANESE, "shift_jis"),
    (JAPANESE, "euc_jp"),
    (KOREAN, "euc_kr"),
    (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8_r"),
    (GERMAN, "latin-1"),
    (GERMAN, "cp1252"),
]


@pytest.mark.parametrize("lines", [1, 40])
@pytest.mark.parametrize(("text", "encoding"), WRITTEN)
def test_common_encodings_are_read(text, encoding, lines):
    assert decode((text * lines).encode(encoding)) == text * lines


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_utf8_is_read_as_it_is(text):
    assert decode(text.encode()) == text.removeprefix("\ufeff")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
        b"\x7fELF\x02\x01\x01" + b"\0" * 64,
        bytes(range(32)) * 40,
        codecs.BOM_UTF16_LE + b"a",
        codecs.BOM_UTF8 + b"\xff",
    ],
    ids=["png", "elf", "control characters", "half a character", "broken"],
)
def test_what_is_no_text_is_refused(data):
    with pytest.raises(NotText):
        decode(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(data):
    with suppress(NotText):
        decode(data).encode()
