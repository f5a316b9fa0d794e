"""Pages of a table in creation order, stable while rows are being inserted."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mooring.core.context import Page


def select_page(
    connection: sa.Connection,
    table: sa.Table,
    owned: sa.ColumnElement[bool],
    name: sa.Column[str],
    page: Page,
    *filters: sa.ColumnElement[bool],
) -> Sequence[sa.Row[Any]] | None:
    """The rows of a page; None when `after` or `before` names none of the owner's rows.

    `table` has a column `serial` that only grows; `name` is what the page's cursors are.
    """
    serial = table.c.serial
    query = table.select().where(owned, *filters)
    for cursor, follows in ((page.after, True), (page.before, False)):
        if cursor is None:
            continue
        edge = connection.execute(sa.select(serial).where(owned, name == cursor)).scalar_one_or_none()
        if edge is None:
            return None
        older = follows is page.newest_first
        query = query.where(serial < edge if older else serial > edge)
    # Before a row means next to it: such a page is read towards the list's beginning.
    backwards = page.before is not None and page.after is None
    order = serial.desc() if page.newest_first is not backwards else serial.asc()
    rows = connection.execute(query.order_by(order).limit(page.limit)).all()
    return rows[::-1] if backwards else rows
