"""Cursors for long lists. A cursor holds the sort values of a page's last row, so the database finds the next rows in an
index, however many rows come before.

The sort columns of such a list are unique together, never null, and either all ascending or all descending.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, literal, tuple_
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import desc_op

from app.web.lists import rows_of

BACK = "~"  # the first character of a cursor that leads to the rows before it


class InvalidCursor(ValueError):
    """The text is not a cursor of this list."""


class CursorPage(NamedTuple):
    """Some rows of a list, its length as `lists.rows_and_total` counts it, and the cursors of the next and of the previous
    rows, if any. A page that was reached by number, not by a cursor, has no previous rows."""

    items: list[Any]
    total: int
    next: str | None
    previous: str | None


def page_of(query: Select[Any], page: int, size: int, cursor: str | None = None) -> CursorPage:
    """Returns page number `page` of `query`, or the rows after or before `cursor`. Raises `InvalidCursor`."""
    descending, columns = _order(query)
    back = cursor is not None and cursor.startswith(BACK)
    if back:
        query = query.order_by(None).order_by(*(column.asc() if descending else column.desc() for column in columns))
    after = [] if cursor is None else [_is_after(descending != back, columns, _decode(cursor, len(columns)))]
    first = 0 if after else (page - 1) * size
    rows, total = rows_of(query, first, size + 1, columns=columns, after=after)
    more = len(rows) > size
    rows = rows[:size][::-1] if back else rows[:size]
    has_next, has_previous = (bool(rows), more) if back else (more, cursor is not None and bool(rows))
    return CursorPage(
        [row[0] for row in rows],
        total,
        _encode(list(rows[-1][1:-1])) if has_next else None,
        BACK + _encode(list(rows[0][1:-1])) if has_previous else None,
    )


def _order(query: Select[Any]) -> tuple[bool, list[ColumnElement[Any]]]:
    """Returns whether a list is descending, and its sort columns."""
    clauses = query._order_by_clauses
    descending = {isinstance(clause, UnaryExpression) and clause.modifier is desc_op for clause in clauses}
    if len(descending) != 1:
        raise TypeError("only a list that sorts in one direction has cursors")
    return descending.pop(), [clause.element if isinstance(clause, UnaryExpression) else clause for clause in clauses]


def _is_after(descending: bool, columns: list[ColumnElement[Any]], values: list[Any]) -> ColumnElement[bool]:
    """The condition that a row comes after the row with these values."""
    row, last = tuple_(*columns), tuple_(*(literal(value) for value in values))
    return row < last if descending else row > last


def _encode(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def _decode(cursor: str, parts: int) -> list[str]:
    text = cursor.removeprefix(BACK)
    try:
        values = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=list[str])
    except (ValueError, msgspec.DecodeError):
        raise InvalidCursor from None
    if len(values) != parts or any("\0" in value for value in values):
        raise InvalidCursor
    return values
