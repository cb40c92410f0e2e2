"""Chargeback: what everybody used and what it cost, day by day, in the columns of FOCUS 1.2."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response, request

from app.blueprints.api.contract import Page, Paged, listed, me, route
from app.clock import from_ms, now_ms
from app.domain.errors import Invalid
from app.pages.focus import COLUMNS, FocusLine, focus_lines, lines_of
from app.pages.usage import record_export
from app.reports import chargeback
from app.web import exports

MOST_MONTHS = 24


class Months(msgspec.Struct, kw_only=True):
    """The first and the last month in UTC, such as 2026-11, of the last 24; without them the current one."""

    first: str | None = msgspec.field(default=None, name="from")
    last: str | None = msgspec.field(default=None, name="to")


class PagedMonths(Paged, kw_only=True):
    """The first and the last month in UTC, such as 2026-11, of the last 24; without them the current one."""

    first: str | None = msgspec.field(default=None, name="from")
    last: str | None = msgspec.field(default=None, name="to")


class FocusPage(Page, kw_only=True):
    data: list[FocusLine]


@route("GET", "/api/chargeback", scope="admin", query=PagedMonths, answer=FocusPage)
def index(query: PagedMonths) -> dict[str, Any]:
    """Lists the lines of the chargeback file, oldest first. The sum of `BilledCost` over all pages is the ledger's."""
    found = [one for lines in chargeback.daily_charges(me(), _months(query)) for one in lines]
    shown = listed(found)
    return shown | {"data": list(lines_of(shown["data"]))}


@route("GET", "/api/chargeback/file", scope="admin", query=Months, file=exports.MIME["csv"])
def file(query: Months) -> Response:
    """Returns all lines as a CSV file with FOCUS's columns."""
    months = _months(query)
    record_export(me(), "chargeback-focus", "csv", request.args)
    return exports.answer("csv", "chargeback-focus", COLUMNS, focus_lines(me(), months))


def _months(query: Months | PagedMonths) -> list[tuple[int, int]]:
    """The starts and ends of the months asked for. Raises `Invalid` naming the field."""
    months = chargeback.months_before(now_ms(), MOST_MONTHS)
    names = [f"{from_ms(start):%Y-%m}" for start, _ in months]
    last = names[-1] if query.last is None else query.last
    end = _place(names, last, "to")
    start = _place(names, last if query.first is None else query.first, "from")
    if start > end:
        raise Invalid("The first month must not be after the last one.", "from")
    return months[start : end + 1]


def _place(names: list[str], month: str, field: str) -> int:
    if month not in names:
        raise Invalid(f"Choose a month from {names[0]} to {names[-1]}.", field)
    return names.index(month)
