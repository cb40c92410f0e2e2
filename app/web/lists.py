"""One page of a list, as the URL requests it. The parameters are `page` and `size` (pagination macro), `sort` (sortable
column heads: `name` or `-name`), `q` (search text), and one parameter per filter.

A list of the portal is a query, narrowed by `filters_from_request`, and a call of `list_page`.

A page of any list is cheap, however long the list: rows are counted up to a bound, which is also where the pages end,
and the rows before a page are skipped in an index where there is one, without being read.
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
    """Some rows of a list, and how many it has in all. A `total` above `MOST_COUNTED` only means that there are
    more."""

    items: list[T]
    page: int
    size: int
    total: int


@dataclass(frozen=True)
class ListFilter:
    """How the URL narrows a list: a text to search for, and a value for each filter. "" means all."""

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
    """Reads the filters of this request: at most `longest` characters of search text, and a value for each of
    `choices`.

    A value that is not among the choices counts as missing, and the filter takes its default. A filter whose choices
    are None accepts any text.
    """
    values = {}
    for name, allowed in choices.items():
        default = (defaults or {}).get(name, "")
        value = request.args.get(name, default)
        values[name] = value[:LONGEST_VALUE] if allowed is None else value if value in allowed else default
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
    """Answers with a list as this request asks for it: all rows as a file, or one page of them, from the templates in
    `folder`.

    `columns` are the sortable columns. `file` writes the export, if the list has one. `load` are loader options for the
    rows of the page. The templates get `listing`, `sort`, `values`, and what `page` returns for the listing.
    """
    ordered = sorted_by_request(query, columns or {})
    if file is not None and (file_format := exports.requested_format()):
        return file(file_format, all_rows(ordered))
    listing = page_of(ordered.options(*load))
    context = {"listing": listing, "sort": requested_sort(columns or {}), **values, **(page(listing) if page else {})}
    return render(f"{folder}/index.html", f"{folder}/_list.html", **context)


def page_of(query: Select[T]) -> Listing[T]:
    """Returns the page of `query` that the URL asks for; for a page beyond the end, the last one."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    page = max(1, min(request.args.get("page", 1, type=int) or 1, MOST_COUNTED // size))
    items, total = rows_and_total(query, page, size)
    if not items and page > 1:
        page = max(1, -(-total // size))
        items, total = rows_and_total(query, page, size)
    return Listing(items, page, size, total)


def rows_and_total(query: Select[T], page: int, size: int) -> tuple[list[T], int]:
    """Returns one page of `query` and how many rows the query has: exact up to `MOST_COUNTED`, above it `MOST_COUNTED +
    1`. Later rows have no page."""
    rows, total = rows_of(query, (page - 1) * size, size)
    return [row[0] for row in rows], total


def rows_of(
    query: Select[Any], first: int, size: int, *, columns: Collection[Any] = (), after: Collection[Any] = ()
) -> tuple[Sequence[Row[Any]], int]:
    """Returns some rows of `query`, each an object followed by the values of `columns`, and how many rows the query has
    in all. `after` are conditions that narrow the rows but not their number.

    One statement does all: it finds the ids first, so that it reads no row before the first one in full.
    """
    names = list(inspect(query.column_descriptions[0]["entity"]).primary_key)
    name = names[0] if len(names) == 1 else tuple_(*names)
    counted = select(func.count()).select_from(
        query.order_by(None).with_only_columns(*names).limit(MOST_COUNTED + 1).subquery()
    )
    if first < MOST_COUNTED:
        piece = query.with_only_columns(*names).where(*after).offset(first).limit(size).subquery("piece")
        whole = query.add_columns(*columns, counted.scalar_subquery())
        whole._where_criteria = (name.in_(select(piece)),)  # by id alone: the original conditions may be expensive
        if rows := db.session.execute(whole).unique().all():
            return rows, rows[0][-1]
    return [], (db.session.scalar(counted) or 0) if first or after else 0


def requested_sort(columns: Collection[str]) -> str | None:
    """The `sort` of the URL if it is one of `columns`, else None: for `data_table(sort=...)`."""
    sort = request.args.get("sort", "")
    return sort if sort.removeprefix("-") in columns else None


def sorted_by_request(query: Select[T], columns: Mapping[str, Any]) -> Select[T]:
    """Returns `query` sorted as the URL asks; `columns` maps column names to SQL expressions.

    Without such a request the query keeps its own order, which also decides between equal rows. Null values come last.
    """
    sort = requested_sort(columns)
    if sort is None:
        return query
    column = columns[sort.removeprefix("-")]
    own = query._order_by_clauses
    order = column.desc() if sort.startswith("-") else column.asc()
    if getattr(column, "nullable", True):  # a column that is never null keeps its index usable
        order = order.nulls_last()
    return query.order_by(None).order_by(order, *own)


def all_rows(query: Select[T]) -> Iterator[T]:
    """Yields all rows of `query` for an export, fetched in batches."""
    yield from db.session.scalars(query.execution_options(yield_per=500))
