"""A page of a list, as its address asks for it: `page` and `size`, the parameters of the pagination macro."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

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
