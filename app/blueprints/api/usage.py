"""Usage by day, week and month: your own; for admins anyone's and everyone's.

The rows come from the ledger's rollups (`app.reports.usage`), the newest period first.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.blueprints.api.contract import Page, Paged, caller, listed, route
from app.clock import from_ms, to_ms
from app.domain import identity, teams
from app.domain.errors import Invalid
from app.metering import money
from app.reports import usage as usage_reports
from app.reports.planner import TeamReader
from app.reports.usage import Filters, PeriodUsage, ReportError, Sums

DEFAULT_PERIODS = {"day": 30, "week": 12, "month": 12}
MOST_ROWS = 200


class AllAtOnce(Paged, kw_only=True):
    """Periods are few: without `limit`, a page has as many rows as allowed."""

    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = MOST_ROWS


class Query(AllAtOnce, kw_only=True):
    """`num_periods` includes the current one; the default is 30 days, 12 weeks or 12 months."""

    num_periods: Annotated[int, Meta(ge=1, le=usage_reports.MOST_PERIODS)] | None = None
    model: str | None = None
    api_type: str | None = None


class Part(msgspec.Struct, kw_only=True, gc=False):
    """The share of one model, or one kind of API, in a period."""

    request_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: str


class Row(msgspec.Struct, kw_only=True):
    """The usage of one calendar period in UTC. Weeks begin on Monday. `period_end` is the start of the next one."""

    period_start: datetime
    period_end: datetime
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    request_count: int
    error_count: int
    cost: str
    models: dict[str, Part]
    api_types: dict[str, Part]


class RowPage(Page, kw_only=True):
    data: list[Row]


class Summary(msgspec.Struct, kw_only=True):
    """Today means the UTC day."""

    total_users: int
    active_users_today: int
    requests_today: int
    errors_today: int
    refused_today: int
    tokens_today: int
    cost_today: str


def reader(*, of_teams: bool = False) -> TeamReader:
    """Returns who reads with this request. An admin's token without the scope `admin` sees only the admin's own usage.

    With `of_teams`, the reader also sees all usage of the teams that they own.
    """
    requester = caller()
    sees_everything = requester.person.sees_everything and "admin" in requester.scopes
    owned = teams.owned_by(requester.person) if of_teams and not sees_everything else ()
    return TeamReader(requester.person.id, sees_everything, owned)


def milliseconds(moment: datetime | None) -> int | None:
    """Returns a time in Unix ms, at least 0."""
    return None if moment is None else max(0, to_ms(moment))


def instant(at_ms: int) -> datetime:
    return from_ms(at_ms)


def part(sums: Sums) -> Part:
    return Part(
        request_count=sums.requests,
        prompt_tokens=sums.prompt_tokens,
        completion_tokens=sums.completion_tokens,
        total_tokens=sums.total_tokens,
        cost=money.text(sums.cost_nano),
    )


def show(row: PeriodUsage) -> Row:
    return Row(
        period_start=row.start,
        period_end=row.end,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        total_tokens=row.total_tokens,
        request_count=row.requests,
        error_count=row.errors,
        cost=money.text(row.cost_nano),
        models={name: part(sums) for name, sums in sorted(row.models.items())},
        api_types={name: part(sums) for name, sums in sorted(row.api_types.items())},
    )


def _usage(query: Query, period: str, person_id: str | None) -> dict[str, Any]:
    if period not in usage_reports.PERIODS:
        raise Invalid(f"Choose one of {', '.join(usage_reports.PERIODS)}.", "period")
    periods = query.num_periods or DEFAULT_PERIODS[period]
    filters = Filters(person_id=person_id, model=query.model, api_type=query.api_type)
    rows = usage_reports.usage(reader(), period, periods=periods, filters=filters, detailed=True)
    return listed([show(row) for row in reversed(rows)])


@route("GET", "/usage/me/<period>", scope="usage:read", query=Query, answer=RowPage)
def mine(query: Query, period: str) -> dict[str, Any]:
    """Returns your own usage, newest period first."""
    return _usage(query, period, caller().person.id)


@route("GET", "/usage/admin/user/<username>/<period>", scope="admin", query=Query, answer=RowPage)
def of_user(query: Query, username: str, period: str) -> dict[str, Any]:
    """Returns one person's usage, newest period first."""
    return _usage(query, period, identity.named(username).id)


@route("GET", "/usage/admin/all/<period>", scope="admin", query=Query, answer=RowPage)
def of_all(query: Query, period: str) -> dict[str, Any]:
    """Returns everyone's usage together, newest period first."""
    return _usage(query, period, None)


@route("GET", "/usage/admin/summary", scope="admin", answer=Summary)
def summary() -> Summary:
    """Returns today's figures over everyone."""
    today = usage_reports.summary(reader())
    return Summary(
        total_users=today.total_users,
        active_users_today=today.active_users_today,
        requests_today=today.requests_today,
        errors_today=today.errors_today,
        refused_today=today.refused_today,
        tokens_today=today.tokens_today,
        cost_today=money.text(today.cost_nano_today),
    )


def refused(error: ReportError) -> Invalid:
    """Returns a `ReportError` as a refusal that names the field at fault."""
    text = str(error)
    return Invalid(f"{text[:1].upper()}{text[1:]}.", error.field)
