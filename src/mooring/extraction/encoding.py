"""Bytes to text in whatever common encoding they are."""

import codecs

from charset_normalizer import from_bytes

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Guessing among all that exist takes German for Polish and Japanese for a dialect of its encodings.
_CANDIDATES = ["gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1251", "koi8_r", "cp1252"]
_CONTROL = frozenset(range(32)) - {9, 10, 12, 13, 27}
_SAMPLE = 1 << 16
_MAX_CONTROL = 0.02


class NotText(Exception):
    """No encoding makes text of these bytes."""


def decode(data: bytes) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        NotText: it is a picture, a program, or in an encoding that nobody should use.
    """
    for bom, encoding in _BOMS.items():
        if data.startswith(bom):
            return _strictly(data, encoding)
    if b"\0" in data[:_SAMPLE]:
        text = _strictly(data, _wide_encoding(data[:_SAMPLE]))
    else:
        text = _narrow(data)
    sample = text[:_SAMPLE]
    if sum(ord(character) in _CONTROL for character in sample) > _MAX_CONTROL * len(sample):
        raise NotText
    return text


def _narrow(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        best = from_bytes(data, cp_isolation=_CANDIDATES).best()
        if best is None:
            raise NotText from None
        return _strictly(data, best.encoding)


def _wide_encoding(sample: bytes) -> str:
    """UTF-16 without a mark: spaces, digits and Latin letters have a 0 in one byte of each pair."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    more, less = max(even, odd), min(even, odd)
    if len(sample) % 2 or 8 * less > more or 20 * more < len(sample):
        raise NotText
    return "utf-16-be" if even > odd else "utf-16-le"


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise NotText from error
