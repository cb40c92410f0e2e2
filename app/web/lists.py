"""A page of a list, as its address asks for it: `page` and `size`, the parameters of the pagination macro, and `sort`,
the one of sortable heads (`name` or `-name`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from flask import request
from sqlalchemy import Select

from app.extensions import db

T = TypeVar("T")

SIZES = (20, 50, 100)


class Listing(NamedTuple, Generic[T]):
    """Some rows of a list, and how many there are in all."""

    items: list[T]
    page: int
    size: int
    total: int


def page_of(query: Select[T]) -> Listing[T]:
    """The rows of `query` that the address asks for; a page beyond the last one is the last one."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    page = max(1, min(request.args.get("page", 1, type=int) or 1, 1_000_000))
    found = db.paginate(query, page=page, per_page=size, max_per_page=SIZES[-1], error_out=False)
    total = found.total or 0
    last = max(1, -(-total // size))
    if page > last:
        found = db.paginate(query, page=last, per_page=size, max_per_page=SIZES[-1], error_out=False)
    return Listing(list(found.items), min(page, last), size, total)


def sorting(columns: Mapping[str, Any]) -> str | None:
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
    return query.order_by(None).order_by(wish.nulls_last(), *own)


def every(query: Select[T]) -> Iterator[T]:
    """All rows of `query` for an export, read in pieces."""
    yield from db.session.scalars(query.execution_options(yield_per=500))
