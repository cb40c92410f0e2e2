"""Chargeback: the usage and cost of each team, and of each person outside teams, in the chosen months.

It is read from the rollups. The total of a month is always the total of the ledger, whatever part of it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from flask import Blueprint, Response, request, url_for

from app import current
from app.blueprints.admin.person import me
from app.clock import from_ms
from app.metering import money
from app.metering.quantities import NAMES
from app.pages.focus import COLUMNS, focus_lines
from app.pages.usage import GONE, Group, look_up_names, record_export
from app.reports import chargeback
from app.reports import usage as usage_reports
from app.reports.chargeback import BILLED, Charge
from app.reports.usage import Sums
from app.web import exports
from app.web.lists import SIZES, Listing, filters_from_request, requested_sort
from app.web.render import render

FOCUS = "focus"  # of the file that holds all lines in the columns of FOCUS, whatever the filters
MONTHS = 24  # to choose from
KINDS = {"team": "Teams", "personal": "Personal"}

bp = Blueprint("chargeback", __name__)


class Line(NamedTuple):
    """One line of the bill: a month of a team, or of a person outside teams."""

    charge: Charge
    name: str

    @property
    def is_team(self) -> bool:
        return bool(self.charge.team_id)

    @property
    def month(self) -> str:
        """For example 2026-11."""
        return f"{from_ms(self.charge.start_ms):%Y-%m}"

    @property
    def title(self) -> str:
        """For example Nov 2026."""
        return f"{from_ms(self.charge.start_ms):%b %Y}"

    @property
    def usage_href(self) -> str:
        """The page with the detailed usage of this month and team."""
        [(start, end)] = chargeback.months_before(self.charge.start_ms, 1)
        days = {"from": f"{from_ms(start):%Y-%m-%d}", "to": f"{from_ms(end - 1):%Y-%m-%d}"}
        return url_for("admin.usage.index", team=self.charge.team_id, range="custom", **days)  # type: ignore[arg-type]


ORDERS: dict[str, Callable[[Charge], Any]] = {
    "month": lambda charge: charge.start_ms,
    "requests": lambda charge: charge.requests,
    "tokens": lambda charge: charge.total_tokens,
    "cost": lambda charge: charge.cost_nano,
}


@bp.get("/admin/chargeback")
def index() -> Response:
    months = chargeback.months_before(usage_reports.now_ms(), MONTHS)
    names = [f"{from_ms(start):%Y-%m}" for start, _ in months]
    first, last = _requested_months(names)
    filters = filters_from_request(kind=KINDS)
    search, kind = filters.search, filters["kind"]
    sort = requested_sort({*ORDERS, "name"})
    if request.args.get("format") == FOCUS:
        record_export(me(), "chargeback-focus", "csv", request.args)
        return exports.answer("csv", "chargeback-focus", COLUMNS, focus_lines(me(), months[first : last + 1]))
    all_charges = chargeback.charges(me(), months[first : last + 1])
    charges = [charge for charge in all_charges if not kind or bool(charge.team_id) == (kind == "team")]
    file_format = exports.requested_format()
    needs_all_names = file_format or search or sort in ("name", "-name")  # otherwise the names of the page are enough
    name_of = _names(charges) if needs_all_names else {}
    if search:
        charges = [charge for charge in charges if search.casefold() in name_of[charge.payer].casefold()]
    charges = _sorted(charges, sort, ORDERS | {"name": lambda charge: name_of[charge.payer].casefold()})
    if file_format:
        record_export(me(), "chargeback", file_format, request.args)
        return exports.answer(file_format, "chargeback", _export_columns(), _lines(charges, name_of))
    page = _page_of(charges)
    whole = _sum(all_charges)
    lines = _lines(page.items, name_of or _names(page.items))
    return render(
        "admin/chargeback/index.html",
        "admin/chargeback/_list.html",
        listing=Listing(lines, page.page, page.size, page.total),
        sums=whole if len(charges) == len(all_charges) else _sum(charges),
        whole=whole,
        months=[(name, f"{from_ms(start):%b %Y}") for name, (start, _) in zip(names, months, strict=True)][::-1],
        first=names[first],
        last=names[last],
        kinds=KINDS,
        kind=kind,
        search=search,
        sort=sort,
    )


def _requested_months(names: Sequence[str]) -> tuple[int, int]:
    """Returns the indexes of the first and the last requested month; by default both are the current month."""
    newest = len(names) - 1
    last = names.index(name) if (name := request.args.get("to", "")) in names else None
    first = names.index(name) if (name := request.args.get("from", "")) in names else None
    if first is None:
        first = newest if last is None else last
    if last is None:
        last = newest
    return min(first, last), max(first, last)


def _sorted(charges: list[Charge], sort: str | None, orders: Mapping[str, Callable[[Charge], Any]]) -> list[Charge]:
    return sorted(charges, key=orders[sort.removeprefix("-")], reverse=sort.startswith("-")) if sort else charges


def _names(charges: Sequence[Charge]) -> dict[str, str]:
    """The names of those who pay, by their ids."""
    payers: dict[Group, set[str]] = {
        "team": {charge.team_id for charge in charges if charge.team_id},
        "user": {charge.person_id for charge in charges if charge.person_id},
    }
    names = {id: name for (_, id), name in look_up_names(payers).items()}
    return {charge.payer: names.get(charge.payer, GONE) for charge in charges}


def _lines(charges: Sequence[Charge], names: Mapping[str, str]) -> list[Line]:
    return [Line(charge, names[charge.payer]) for charge in charges]


def _sum(charges: Sequence[Charge]) -> Sums:
    of_each = zip(*map(attrgetter(*BILLED), charges), strict=True)
    return Sums(**dict(zip(BILLED, map(sum, of_each), strict=False)))  # no charges, no sums


def _page_of(charges: list[Charge]) -> Listing[Charge]:
    """Returns the page of charges that the URL asks for; for a page beyond the end, the last one."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    last = max(1, -(-len(charges) // size))
    page = min(max(1, request.args.get("page", 1, type=int) or 1), last)
    return Listing(charges[(page - 1) * size : page * size], page, size, len(charges))


def _export_columns() -> dict[str, Callable[[Line], Any]]:
    currency = current.config().portal.currency
    return {
        "month": lambda line: line.month,
        "kind": lambda line: "team" if line.is_team else "personal",
        "name": lambda line: line.name,
        "team_id": lambda line: line.charge.team_id or None,
        "person_id": lambda line: line.charge.person_id or None,
        "requests": lambda line: line.charge.requests,
        "errors": lambda line: line.charge.errors,
        **{name: attrgetter(f"charge.{name}") for name in NAMES},
        "total_tokens": lambda line: line.charge.total_tokens,
        "cost": lambda line: money.text(line.charge.cost_nano),
        "currency": lambda line: currency,
    }
