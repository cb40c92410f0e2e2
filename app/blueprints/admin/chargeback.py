"""Chargeback: what each team, and each person outside of teams, used and cost in the months that are chosen.

It is read from the rollups; the total of a month is the total of the ledger, whatever is shown of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flask import Blueprint, Response, request, url_for

from app import current
from app.blueprints.admin.person import me
from app.domain import identity, teams
from app.ledger import chargeback, reports
from app.ledger.chargeback import BILLED, Charge
from app.ledger.reports import Sums
from app.metering import money
from app.web import exports
from app.web.lists import SIZES, Listing, sorting
from app.web.render import render

MONTHS = 24  # that are offered
KINDS = {"team": "Teams", "personal": "Personal"}
GONE = "(removed)"

bp = Blueprint("chargeback", __name__)


class Line(NamedTuple):
    """One line of the bill: a month of a team, or of a person outside of teams."""

    charge: Charge
    name: str

    @property
    def is_team(self) -> bool:
        return bool(self.charge.team_id)

    @property
    def month(self) -> str:
        """Such as 2026-11."""
        return f"{_moment(self.charge.start_ms):%Y-%m}"

    @property
    def title(self) -> str:
        """Such as Nov 2026."""
        return f"{_moment(self.charge.start_ms):%b %Y}"

    @property
    def usage_href(self) -> str:
        """The usage of this month and team, in detail."""
        [(start, end)] = chargeback.months_before(self.charge.start_ms, 1)
        days = {"from": f"{_moment(start):%Y-%m-%d}", "to": f"{_moment(end - 1):%Y-%m-%d}"}
        return url_for("admin.usage.index", team=self.charge.team_id, range="custom", **days)  # type: ignore[arg-type]


COLUMNS: dict[str, Callable[[Line], Any]] = {
    "month": lambda line: line.charge.start_ms,
    "name": lambda line: line.name.casefold(),
    "requests": lambda line: line.charge.requests,
    "tokens": lambda line: line.charge.total_tokens,
    "cost": lambda line: line.charge.cost_nano,
}


@bp.get("/admin/chargeback")
def index() -> Response:
    offered = chargeback.months_before(reports.now_ms(), MONTHS)
    names = [f"{_moment(start):%Y-%m}" for start, _ in offered]
    first, last = _months_asked(names)
    search = request.args.get("q", "").strip()[:100]
    kind = request.args.get("kind", "")
    kind = kind if kind in KINDS else ""
    lines = _lines(chargeback.charges(me(), offered[first : last + 1]))
    whole = _sum(lines)
    shown = lines
    if kind or search:
        shown = [
            line
            for line in lines
            if (not kind or line.is_team == (kind == "team")) and search.casefold() in line.name.casefold()
        ]
    sort = sorting(COLUMNS)
    if sort is not None:
        shown = sorted(shown, key=COLUMNS[sort.removeprefix("-")], reverse=sort.startswith("-"))
    if form := exports.wanted():
        return exports.answer(form, "chargeback", _export_columns(), shown)
    return render(
        "admin/chargeback/index.html",
        "admin/chargeback/_list.html",
        found=_page_of(shown),
        sums=whole if shown is lines else _sum(shown),
        whole=whole,
        months=[(name, f"{_moment(start):%b %Y}") for name, (start, _) in zip(names, offered, strict=True)][::-1],
        first=names[first],
        last=names[last],
        kinds=KINDS,
        kind=kind,
        search=search,
        sort=sort,
    )


def _months_asked(names: Sequence[str]) -> tuple[int, int]:
    """The places of the first and the last month that are asked for; without a wish it is the present one."""
    newest = len(names) - 1
    last = names.index(asked) if (asked := request.args.get("to", "")) in names else None
    first = names.index(asked) if (asked := request.args.get("from", "")) in names else None
    if first is None:
        first = newest if last is None else last
    if last is None:
        last = newest
    return min(first, last), max(first, last)


def _lines(charges: Sequence[Charge]) -> list[Line]:
    team_ids = {charge.team_id for charge in charges if charge.team_id}
    team_names = teams.names_of(team_ids)
    team_names |= teams.former_names_of(team_ids - team_names.keys())
    people = identity.names_of({charge.person_id for charge in charges if charge.person_id})
    return [
        Line(charge, (team_names if charge.team_id else people).get(charge.team_id or charge.person_id) or GONE)
        for charge in charges
    ]


def _sum(lines: Sequence[Line]) -> Sums:
    return Sums(**{name: sum(getattr(line.charge, name) for line in lines) for name in BILLED})


def _page_of(lines: list[Line]) -> Listing[Line]:
    """The lines that the address asks for; a page beyond the last one is the last one."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    last = max(1, -(-len(lines) // size))
    page = min(max(1, request.args.get("page", 1, type=int) or 1), last)
    return Listing(lines[(page - 1) * size : page * size], page, size, len(lines))


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
        "prompt_tokens": lambda line: line.charge.prompt_tokens,
        "cached_tokens": lambda line: line.charge.cached_tokens,
        "completion_tokens": lambda line: line.charge.completion_tokens,
        "total_tokens": lambda line: line.charge.total_tokens,
        "cost": lambda line: money.text(line.charge.cost_nano),
        "currency": lambda line: currency,
    }


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
