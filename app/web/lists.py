"""A page of a list, as its address asks for it: `page` and `size`, the parameters of the pagination macro, and `sort`,
the one of sortable heads (`name` or `-name`).

However long a list is, a page of it costs little: rows are counted up to a bound, which is also where the pages end, and
those that come before a page are stepped over in an index where there is one, without being read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from flask import request
from sqlalchemy import Row, Select, func, inspect, select, tuple_

from app.extensions import db
from app.web.formats import MOST_COUNTED

T = TypeVar("T")

SIZES = (20, 50, 100)


class Listing(NamedTuple, Generic[T]):
    """Some rows of a list, and how many there are in all; above `MOST_COUNTED` only that there are more."""

    items: list[T]
    page: int
    size: int
    total: int


def page_of(query: Select[T]) -> Listing[T]:
    """The rows of `query` that the address asks for; a page beyond the last one is the last one known."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    page = max(1, min(request.args.get("page", 1, type=int) or 1, MOST_COUNTED // size))
    items, total = piece_of(query, page, size)
    if not items and page > 1:
        page = max(1, -(-total // size))
        items, total = piece_of(query, page, size)
    return Listing(items, page, size, total)


def piece_of(query: Select[T], page: int, size: int) -> tuple[list[T], int]:
    """One page of `query`, and how many rows it has in all: exact up to `MOST_COUNTED`, above it one more than that.
    There are no pages beyond these."""
    rows, total = rows_of(query, (page - 1) * size, size)
    return [row[0] for row in rows], total


def rows_of(
    query: Select[Any], first: int, size: int, *, marks: Collection[Any] = (), beyond: Collection[Any] = ()
) -> tuple[Sequence[Row[Any]], int]:
    """Some rows of `query`, each its object and then what `marks` tells of it, and how many rows it has in all;
    `beyond` narrows the rows, and not their number.

    All in one query, in which ids are found first, so that no row before the first one is read in full.
    """
    names = list(inspect(query.column_descriptions[0]["entity"]).primary_key)
    name = names[0] if len(names) == 1 else tuple_(*names)
    counted = select(func.count()).select_from(
        query.order_by(None).with_only_columns(*names).limit(MOST_COUNTED + 1).subquery()
    )
    if first < MOST_COUNTED:
        piece = query.with_only_columns(*names).where(*beyond).offset(first).limit(size).subquery("piece")
        whole = query.add_columns(*marks, counted.scalar_subquery())
        whole._where_criteria = (name.in_(select(piece)),)  # by their ids alone: what they were found by may cost much
        if found := db.session.execute(whole).unique().all():
            return found, found[0][-1]
    return [], (db.session.scalar(counted) or 0) if first or beyond else 0


def sorting(columns: Collection[str]) -> str | None:
    """The `sort` that the address asks for, if it is one of `columns`: for `data_table(sort=...)`."""
    asked = request.args.get("sort", "")
    return asked if asked.removeprefix("-") in columns else None


def in_order(query: Select[T], columns: Mapping[str, Any]) -> Select[T]:
    """`query` in the order that the address asks for; `columns` maps names of heads to what SQL sorts by. Without
    a wish its own order stays, and where rows are equal too; rows without a value come last either way."""
    asked = sorting(columns)
    if asked is None:
        return query
    column = columns[asked.removeprefix("-")]
    own = query._order_by_clauses
    wish = column.desc() if asked.startswith("-") else column.asc()
    if getattr(column, "nullable", True):  # else its index tells the order as it is
        wish = wish.nulls_last()
    return query.order_by(None).order_by(wish, *own)


def every(query: Select[T]) -> Iterator[T]:
    """All rows of `query` for an export, read in pieces."""
    yield from db.session.scalars(query.execution_options(yield_per=500))
