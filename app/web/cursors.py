"""Cursors: where a list goes on, told by what its last row is ordered by, so that the next rows are found in an index
however many came before.

They are of lists whose order is one of unique values that are always there, all rising or all falling.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, literal, tuple_
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import desc_op

from app.web.lists import rows_of


class NoCursor(ValueError):
    """What was given leads nowhere in this list."""


class Piece(NamedTuple):
    """Some rows of a list, how many it has as `lists.piece_of` tells it, and the cursor of those that follow."""

    items: list[Any]
    total: int
    next: str | None


def piece_of(query: Select[Any], page: int, size: int, cursor: str | None = None) -> Piece:
    """One page of `query`, or what follows a cursor. Raises `NoCursor`."""
    falling, order = _order(query)
    beyond = [] if cursor is None else [_beyond(falling, order, _read(cursor, len(order)))]
    first = 0 if beyond else (page - 1) * size
    rows, total = rows_of(query, first, size + 1, marks=order, beyond=beyond)
    items = [row[0] for row in rows[:size]]
    return Piece(items, total, _spelled(list(rows[size - 1][1:-1])) if len(rows) > size else None)


def _order(query: Select[Any]) -> tuple[bool, list[ColumnElement[Any]]]:
    """Whether a list is falling, and by what it is ordered."""
    clauses = query._order_by_clauses
    falling = {isinstance(clause, UnaryExpression) and clause.modifier is desc_op for clause in clauses}
    if len(falling) != 1:
        raise TypeError("only a list of one direction has cursors")
    return falling.pop(), [clause.element if isinstance(clause, UnaryExpression) else clause for clause in clauses]


def _beyond(falling: bool, order: list[ColumnElement[Any]], marks: list[Any]) -> ColumnElement[bool]:
    here, there = tuple_(*order), tuple_(*(literal(mark) for mark in marks))
    return here < there if falling else here > there


def _spelled(marks: list[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(marks)).decode().rstrip("=")


def _read(cursor: str, parts: int) -> list[str]:
    try:
        marks = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[str])
    except (ValueError, msgspec.DecodeError):
        raise NoCursor from None
    if len(marks) != parts or any("\0" in mark for mark in marks):
        raise NoCursor
    return marks
