"""Single requests and their statistics, from the books: one's own, and everybody's for admins.

A request's id is the `x-request-id` that /v1 answered with.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import or_, select

from app.blueprints.api.contract import Cursor, CursorPage, Page, Paged, listed, me, route, within_reach
from app.blueprints.api.usage import MOST_ROWS, instant, milliseconds, reader, refused
from app.domain import identity
from app.domain.errors import Invalid, NotFound
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.providers import Provider
from app.extensions import db
from app.ledger.entries import UsageEntry
from app.metering import money
from app.metering.quantities import NAMES, Quantities
from app.metering.usage import Refusal
from app.reports import refused_requests, requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, PeriodUsage, ReportError

OUTCOMES = ("ok", "error", "cancelled")
NOBODY = "-"  # no id: filtering by a name that nothing has finds nothing


class CallFault(msgspec.Struct, kw_only=True):
    code: str | None
    message: str | None


class Try(msgspec.Struct, kw_only=True):
    """One try at one deployment and how it ended; `error` is null when it served."""

    deployment_id: str
    provider_id: str
    duration_ms: int
    error: str | None = None


class Request(Quantities, kw_only=True):
    """One call. `at` is when it was let in; `outcome` is ok, error or cancelled; `status` the HTTP status answered.

    `user`, `provider` and `key_name` are null for what is no more; the ids stay.
    """

    id: str
    at: datetime
    user: str | None
    user_id: str
    key: str | None
    key_name: str | None
    team_id: str | None
    model: str
    provider: str | None
    provider_id: str | None
    deployment_id: str | None
    endpoint: str
    api_type: str
    stream: bool
    status: int
    outcome: str
    error: CallFault | None
    finish_reason: str | None
    service_tier: str | None
    total_tokens: int
    estimated: bool
    cost: str
    duration_ms: int
    ttft_ms: int | None


class RequestPage(CursorPage, kw_only=True):
    data: list[Request]


class Correction(msgspec.Struct, kw_only=True):
    """A later entry of the books about the same request."""

    kind: str
    at: datetime
    cost: str


class OneRequest(Request, kw_only=True):
    """A request with its tries, and with what was booked for it later; `cost` is the first booking's."""

    attempts: list[Try]
    price_id: str | None
    overdraft: str
    corrections: list[Correction]


class Limit(msgspec.Struct, kw_only=True):
    """The limit that a request met. Amounts are decimals, of a budget only; `per_minute` and `parallel` are of rates.

    `scope` is key, subscription, user, member, team or organisation, `id` its id and `name` what people call it.
    `frees_at` is when it may be let in again as it was, null when nothing but a change of the limit frees it.
    """

    reason: str
    scope: str
    id: str
    name: str
    limit: str | None = None
    spent: str | None = None
    reserved: str | None = None
    needed: str | None = None
    per_minute: int | None = None
    parallel: int | None = None
    affordable_tokens: int | None = None
    frees_at: datetime | None = None


class RefusedRequest(msgspec.Struct, kw_only=True):
    """A call that was not let in; told for a day. `status` and `outcome` are "refused"."""

    id: str
    at: datetime
    user: str | None
    user_id: str
    key: str | None
    key_name: str | None
    team_id: str | None
    model: str
    endpoint: str
    status: str
    outcome: str
    error: CallFault
    refusal: Limit
    cost: str = "0"


class Stat(Quantities, kw_only=True):
    """What was used in one hour, day, week or month of UTC. Means are null without requests."""

    period_start: datetime
    period_end: datetime
    request_count: int
    error_count: int
    cancelled_count: int
    total_tokens: int
    cost: str
    mean_duration_ms: float | None
    mean_ttft_ms: float | None


class StatPage(Page, kw_only=True):
    data: list[Stat]


class Narrowed(Paged, kw_only=True):
    """`provider` is an id or a name, `status` an HTTP status or one of ok, error, cancelled.

    With `team`, the id of a team that one owns, everybody's requests with its keys; of another that one is in, one's own.
    `user` is for admins, and in a team for its owners.
    """

    provider: str | None = None
    endpoint: str | None = None
    api_type: str | None = None
    model: str | None = None
    user: str | None = None
    key: str | None = None
    team: str | None = None
    status: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")


class Asked(Narrowed, kw_only=True):
    """`cursor` instead of `page` leads on from an answer."""

    cursor: Cursor | None = None


class Grouped(Narrowed, kw_only=True):
    group_by: usage_reports.Step = msgspec.field(default="day", name="groupBy")
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = MOST_ROWS


class _Names(msgspec.Struct):
    """What ids are called now."""

    people: dict[str, str] = {}
    keys: dict[str, str] = {}
    providers: dict[str, str] = {}


def _names(entries: Sequence[UsageEntry]) -> _Names:
    def named(table: Any, name: Any, ids: set[str | None]) -> dict[str, str]:
        wanted = [id for id in ids if id]
        if not wanted:
            return {}
        return {row[0]: row[1] for row in db.session.execute(select(table.id, name).where(table.id.in_(wanted)))}

    return _Names(
        people=named(Person, Person.username, {entry.person_id for entry in entries}),
        keys=named(ApiKey, ApiKey.name, {entry.key_id for entry in entries}),
        providers=named(Provider, Provider.name, {entry.provider_id for entry in entries}),
    )


def _fields(entry: UsageEntry, names: _Names) -> dict[str, Any]:
    failed = entry.error_code is not None or entry.error_message is not None
    return {
        "id": entry.request_id,
        "at": instant(entry.at_ms),
        "user": names.people.get(entry.person_id),
        "user_id": entry.person_id,
        "key": entry.key_id,
        "key_name": names.keys.get(entry.key_id or ""),
        "team_id": entry.team_id,
        "model": entry.model,
        "provider": names.providers.get(entry.provider_id or ""),
        "provider_id": entry.provider_id,
        "deployment_id": entry.deployment_id,
        "endpoint": entry.endpoint,
        "api_type": entry.api_type,
        "stream": entry.stream,
        "status": entry.status,
        "outcome": entry.outcome,
        "error": CallFault(code=entry.error_code, message=entry.error_message) if failed else None,
        "finish_reason": entry.finish_reason,
        "service_tier": entry.service_tier,
        **_quantities(entry),
        "total_tokens": entry.prompt_tokens + entry.completion_tokens,
        "estimated": entry.estimated,
        "cost": money.text(entry.cost_nano),
        "duration_ms": entry.duration_ms,
        "ttft_ms": entry.ttft_ms,
    }


def _quantities(used: object) -> dict[str, int]:
    return {name: getattr(used, name) for name in NAMES}


def _filters(asked: Narrowed) -> Filters:
    status = asked.status
    if status is not None and status not in OUTCOMES:
        if not (status.isascii() and status.isdigit() and len(status) == 3):
            raise Invalid(f"Give an HTTP status such as 200, or one of {', '.join(OUTCOMES)}.", "status")
        status_number: int | str | None = int(status)
    else:
        status_number = status
    username = asked.user
    person = identity.find(username) if username else None
    return Filters(
        person_id=None if username is None else person.id if person else NOBODY,
        key_id=asked.key,
        team_id=asked.team,
        model=asked.model,
        provider_id=_provider_id(asked.provider),
        endpoint=asked.endpoint,
        api_type=asked.api_type,
        status=status_number,
        from_ms=milliseconds(asked.since),
        to_ms=milliseconds(asked.until),
    )


def _provider_id(name: str | None) -> str | None:
    """A provider is named by its id or by its name; one that is no more by its id."""
    if name is None:
        return None
    found = db.session.scalar(select(Provider.id).where(or_(Provider.id == name, Provider.name == name)))
    return found or name


def _page(asked: Asked) -> dict[str, Any]:
    limit, number = asked.limit, asked.page
    try:
        found = requests.search(
            reader(of_teams=asked.team is not None),
            filters=_filters(asked),
            limit=limit,
            cursor=asked.cursor,
            skip=(number - 1) * limit,
        )
    except ReportError as error:
        raise refused(error) from None
    within_reach(found.total, found.entries)
    names = _names(found.entries)
    return {
        "data": [Request(**_fields(entry, names)) for entry in found.entries],
        "page": number,
        "limit": limit,
        "total": found.total,
        "next_cursor": found.next,
    }


@route("GET", "/api/requests", query=Asked, answer=RequestPage)
def index(asked: Asked) -> dict[str, Any]:
    """Requests, newest first. Filters `provider, endpoint, model, user, key, status, from, to`; pages or a `cursor`."""
    return _page(asked)


@route("GET", "/usage/admin/recent", scope="admin", query=Asked, answer=RequestPage)
def recent(asked: Asked) -> dict[str, Any]:
    """Everybody's last requests, newest first, with the same filters."""
    return _page(asked)


@route("GET", "/api/requests/stats", query=Grouped, answer=StatPage)
def stats(asked: Grouped) -> dict[str, Any]:
    """Usage grouped by `groupBy` = hour, day, week or month, oldest first, with the filters of the list.

    Without `from` the last 24 hours, 30 days, 12 weeks or 12 months.
    """
    try:
        rows = usage_reports.stats(reader(of_teams=asked.team is not None), asked.group_by, filters=_filters(asked))
    except ReportError as error:
        raise refused(error) from None
    return listed([_stat(row) for row in rows])


def _stat(row: PeriodUsage) -> Stat:
    return Stat(
        period_start=row.start,
        period_end=row.end,
        request_count=row.requests,
        error_count=row.errors,
        cancelled_count=row.cancelled,
        **_quantities(row),
        total_tokens=row.total_tokens,
        cost=money.text(row.cost_nano),
        mean_duration_ms=row.mean_duration_ms,
        mean_ttft_ms=row.mean_ttft_ms,
    )


@route("GET", "/api/requests/<id>", answer=OneRequest | RefusedRequest)
def show(id: str) -> OneRequest | RefusedRequest:
    """One request, by the `x-request-id` of its answer; for a day also one that was refused."""
    entries = requests.entries_of(reader(of_teams=True), id)
    if not entries and (refusal := refused_requests.find(me(), id)):
        return _refused(refusal)
    if not entries:
        raise NotFound("There is no such request.")
    usage = next((entry for entry in entries if entry.kind == "usage"), entries[0])
    return OneRequest(
        **_fields(usage, _names([usage])),
        attempts=[msgspec.convert(attempt, Try) for attempt in usage.attempts],
        price_id=usage.price_id,
        overdraft=money.text(usage.overdraft_nano),
        corrections=[
            Correction(kind=entry.kind, at=instant(entry.at_ms), cost=money.text(entry.cost_nano))
            for entry in entries
            if entry is not usage
        ],
    )


def _refused(found: Refusal) -> RefusedRequest:
    key = db.session.get(ApiKey, found.key_id) if found.key_id else None
    person = identity.by_id(found.person_id)
    limit = Limit(reason=found.reason, scope=found.scope_kind, id=found.scope_id, name=found.scope_shown)
    match found.reason:
        case "budget":
            limit.limit, limit.spent = money.text(found.limit), money.text(max(found.spent, 0))
            limit.reserved, limit.needed = money.text(found.held), money.text(found.amount)
            limit.affordable_tokens = found.affordable_tokens
            limit.frees_at = None if found.resets_ms is None else instant(found.resets_ms)
        case "requests" | "tokens":
            limit.per_minute, limit.frees_at = found.limit, instant(found.at_ms + found.retry_ms)
        case "parallel":
            limit.parallel, limit.frees_at = found.limit, instant(found.at_ms + found.retry_ms)
    return RefusedRequest(
        id=found.request_id,
        at=instant(found.at_ms),
        user=person.username if person else None,
        user_id=found.person_id,
        key=found.key_id,
        key_name=key.name if key else None,
        team_id=found.team_id,
        model=found.model,
        endpoint=found.endpoint,
        status="refused",
        outcome="refused",
        error=CallFault(code=found.reason, message=found.message),
        refusal=limit,
    )
