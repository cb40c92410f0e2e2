"""A page of a list, as its address asks for it: `page` and `size`, the parameters of the pagination macro, `sort`, the one
of sortable heads (`name` or `-name`), `q`, the text that is searched for, and one parameter a filter.

A list of the portal is its query, narrowed by `filters_from_request`, and `list_page`.

However long a list is, a page of it costs little: rows are counted up to a bound, which is also where the pages end, and
those that come before a page are stepped over in an index where there is one, without being read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from flask import Response, request
from sqlalchemy import Row, Select, func, inspect, select, tuple_

from app.extensions import db
from app.web import exports
from app.web.formats import MOST_COUNTED
from app.web.render import render

T = TypeVar("T")

SIZES = (20, 50, 100)
LONGEST_VALUE = 200  # characters of a filter that takes any text


class Listing(NamedTuple, Generic[T]):
    """Some rows of a list, and how many there are in all; above `MOST_COUNTED` only that there are more."""

    items: list[T]
    page: int
    size: int
    total: int


@dataclass(frozen=True)
class ListFilter:
    """What the address of a list narrows it to: a text to search for, and a value of each filter. "" means all."""

    search: str
    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def is_narrow(self) -> bool:
        return bool(self.search) or any(self.values.values())


def filters_from_request(
    *, longest: int = 100, defaults: Mapping[str, str] | None = None, **choices: Collection[str] | None
) -> ListFilter:
    """The filters of this request: at most `longest` characters of the text, and for each of `choices` the value that the
    address gives. What is none of them counts as not given, and then the filter has its default; None allows any text.
    """
    values = {}
    for name, allowed in choices.items():
        default = (defaults or {}).get(name, "")
        given = request.args.get(name, default)
        values[name] = given[:LONGEST_VALUE] if allowed is None else given if given in allowed else default
    return ListFilter(request.args.get("q", "").strip()[:longest], values)


def list_page(
    folder: str,
    query: Select[T],
    columns: Mapping[str, Any] | None = None,
    *,
    file: Callable[[exports.Format, Iterator[T]], Response] | None = None,
    page: Callable[[Listing[T]], Mapping[str, Any]] | None = None,
    load: Sequence[Any] = (),
    **values: Any,
) -> Response:
    """A list as this request asks for it: all rows as a file, or one page of them from the templates in `folder`.

    `columns` are what the heads sort by. `file` makes the export of a list that has one. The templates get `found`,
    `sort`, `values`, and what `page` tells of the rows that are shown, which come with what `load` names.
    """
    ordered = in_order(query, columns or {})
    if file is not None and (form := exports.wanted()):
        return file(form, every(ordered))
    found = page_of(ordered.options(*load))
    told = {"found": found, "sort": sorting(columns or {}), **values, **(page(found) if page else {})}
    return render(f"{folder}/index.html", f"{folder}/_list.html", **told)


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
