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


class InvalidCursor(ValueError):
    """The text is not a cursor of this list."""


class CursorPage(NamedTuple):
    """Some rows of a list, its length as `lists.rows_and_total` counts it, and the cursor of the next rows, if any."""

    items: list[Any]
    total: int
    next: str | None


def page_of(query: Select[Any], page: int, size: int, cursor: str | None = None) -> CursorPage:
    """Returns page number `page` of `query`, or the rows after `cursor`. Raises `InvalidCursor`."""
    descending, columns = _order(query)
    after = [] if cursor is None else [_is_after(descending, columns, _decode(cursor, len(columns)))]
    first = 0 if after else (page - 1) * size
    rows, total = rows_of(query, first, size + 1, columns=columns, after=after)
    items = [row[0] for row in rows[:size]]
    return CursorPage(items, total, _encode(list(rows[size - 1][1:-1])) if len(rows) > size else None)


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
    try:
        values = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str])
    except (ValueError, msgspec.DecodeError):
        raise InvalidCursor from None
    if len(values) != parts or any("\0" in value for value in values):
        raise InvalidCursor
    return values
