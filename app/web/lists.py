"""A page of a list, as its address asks for it: `page` and `size`, the parameters of the pagination macro, and `sort`,
the one of sortable heads (`name` or `-name`).

However long a list is, a page of it costs little: rows are counted up to a bound, and those that come before the page
are stepped over in an index where there is one, without being read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from flask import request
from sqlalchemy import Select, func, inspect, select, tuple_

from app.extensions import db
from app.web.formats import MOST_COUNTED

T = TypeVar("T")

SIZES = (20, 50, 100)
FARTHEST = 1_000_000


class Listing(NamedTuple, Generic[T]):
    """Some rows of a list, and how many there are in all; above `MOST_COUNTED` only how many there are at least."""

    items: list[T]
    page: int
    size: int
    total: int


def page_of(query: Select[T]) -> Listing[T]:
    """The rows of `query` that the address asks for; a page beyond the last one is the last one known."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    page = max(1, min(request.args.get("page", 1, type=int) or 1, FARTHEST))
    items, total = piece_of(query, page, size)
    if not items and page > 1:
        page = max(1, -(-min(total, MOST_COUNTED) // size))
        items, total = piece_of(query, page, size)
    return Listing(items, page, size, total)


def piece_of(query: Select[T], page: int, size: int) -> tuple[list[T], int]:
    """One page of `query`, and how many rows it has in all: exact up to `MOST_COUNTED`, above it at least.

    First the page's ids are found, so that no row before it is read in full, and how many there are.
    """
    names = list(inspect(query.column_descriptions[0]["entity"]).primary_key)
    name = names[0] if len(names) == 1 else tuple_(*names)
    first = (page - 1) * size
    counted = select(func.count()).select_from(
        query.order_by(None).with_only_columns(*names).limit(MOST_COUNTED + 1).subquery()
    )
    piece = query.with_only_columns(counted.scalar_subquery(), *names).offset(first).limit(size + 1)
    seen = db.session.execute(piece).all()
    ids = [row[1] if len(names) == 1 else tuple(row[1:]) for row in seen]
    known = seen[0][0] if seen else (db.session.scalar(counted) or 0) if first else 0
    total = max(known, first + len(ids)) if ids else known
    whole = query.order_by(None)
    whole._where_criteria = (name.in_(ids[:size]),)  # by their ids alone: what they were found by may cost much
    found = db.session.scalars(whole).unique() if ids else ()
    rows = {_id_of(row): row for row in found}
    return [rows[id] for id in ids[:size] if id in rows], total


def _id_of(row: Any) -> Any:
    id = inspect(row).identity
    return id[0] if len(id) == 1 else tuple(id)


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
