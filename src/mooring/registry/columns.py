"""Types of columns that mean the same in both databases."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite counts by itself in a column that says INTEGER, and then in 64 bits."""


class _Escaped(sa.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        return None if value is None else _unescape(value)


class _EscapedMap(sa.TypeDecorator[Mapping[str, str]]):
    impl = sa.JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: sa.Dialect) -> Any:
        return None if value is None else {escape(key): escape(text) for key, text in value.items()}

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> Any:
        return (
            None if value is None else {_unescape(key): _unescape(text) for key, text in value.items()}
        )


TEXT = sa.Text().with_variant(_Escaped(), "postgresql")
"""Any text. PostgreSQL's has no NUL: there it is written as \\x01 and "0"."""

TEXT_MAP = sa.JSON(none_as_null=True).with_variant(_EscapedMap(), "postgresql")
"""Texts by texts, as JSON. PostgreSQL can look into no JSON in which there is a NUL."""


def escape(text: str) -> str:
    """As PostgreSQL has it; texts that differ stay different."""
    return text.replace("\x01", "\x011").replace("\x00", "\x010")


def _unescape(text: str) -> str:
    return text.replace("\x010", "\x00").replace("\x011", "\x01")
