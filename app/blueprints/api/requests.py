"""Single requests and their statistics, from the ledger: your own; for admins everyone's.

A request's id is the `x-request-id` of the answer from /v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import or_, select

from app.blueprints.api.contract import Cursor, CursorPage, Page, Paged, listed, route, within_reach
from app.blueprints.api.usage import MOST_ROWS, instant, milliseconds, reader, refused
from app.domain import identity
from app.domain.errors import Invalid, NotFound
from app.domain.providers import Provider
from app.extensions import db
from app.ledger.entries import UsageEntry
from app.ledger.measures import DAY_MS
from app.metering import money
from app.metering.quantities import NAMES, Quantities
from app.metering.usage import Refusal
from app.pages.usage import GONE, GROUPS, Group, look_up_names
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, PeriodUsage, ReportError

SHARED_DAYS = 30
OUTCOMES = ("ok", "error", "cancelled", "refused")
NOBODY = "-"  # no id: a filter by an unknown name finds nothing


class CallFault(msgspec.Struct, kw_only=True):
    code: str | None
    message: str | None


class Try(msgspec.Struct, kw_only=True):
    """One attempt at one deployment and how it ended. `error` is null if it served the request; `cost` is what a failed one
    cost by the model's price and the usage that it told, which is not charged."""

    deployment_id: str
    provider_id: str
    duration_ms: int
    error: str | None = None
    cost: str = "0"


def _try(attempt: dict[str, Any]) -> Try:
    told = {name: value for name, value in attempt.items() if name != "cost_nano"}
    return msgspec.convert(told | {"cost": money.text(attempt.get("cost_nano", 0))}, Try)


class Request(Quantities, kw_only=True):
    """One call. `at` is when it was received; `outcome` is ok, error, cancelled or refused (before a provider was asked);
    `status` is the HTTP status of the answer. `calls` is 1, but for refused calls beyond the first of a minute: these are
    counted in one row.

    `user`, `provider` and `key_name` of what was deleted are the names that it had last. `session_id`, `agent` (its program),
    `subagent_id` and `tags` are the client's own words; requests of a session that ask the same have the same `turn_id`.
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
    calls: int
    error: CallFault | None
    finish_reason: str | None
    service_tier: str | None
    total_tokens: int
    estimated: bool
    cost: str
    duration_ms: int
    ttft_ms: int | None
    session_id: str | None
    agent: str | None
    subagent_id: str | None
    turn_id: str | None
    tags: list[str]


class RequestPage(CursorPage, kw_only=True):
    data: list[Request]


class Correction(msgspec.Struct, kw_only=True):
    """A later ledger entry about the same request."""

    kind: str
    at: datetime
    cost: str


class OneRequest(Request, kw_only=True):
    """A request with its attempts and its later ledger entries. `cost` is that of the first entry. `unpriced` has what was
    used for which the price has no member, by name: a quantity, or a name of the provider's own."""

    unpriced: dict[str, int]
    attempts: list[Try]
    price_id: str | None
    overdraft: str
    corrections: list[Correction]


class Limit(msgspec.Struct, kw_only=True):
    """The limit that refused a request. Amounts are decimals, for budgets only; `per_minute` and `parallel` are for
    rates.

    `scope` is key, subscription, user, member, team or organisation, `id` its id and `name` its name. The same request
    can be accepted at `frees_at`; null means that only a change of the limit helps.
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
    """A call that was refused before a provider was asked. `status` and `outcome` are "refused"; `refusal` is null where no
    limit was the reason. `calls` is 1, or how many are only counted."""

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
    calls: int
    error: CallFault
    refusal: Limit | None
    cost: str = "0"


class Stat(Quantities, kw_only=True):
    """The usage of one hour, day, week or month in UTC. Means are null without requests."""

    period_start: datetime
    period_end: datetime
    request_count: int
    error_count: int
    cancelled_count: int
    refused_count: int
    total_tokens: int
    cost: str
    mean_duration_ms: float | None
    mean_ttft_ms: float | None


class StatPage(Page, kw_only=True):
    data: list[Stat]


class Narrowed(Paged, kw_only=True):
    """`provider` is an id or a name; `status` is an HTTP status or one of ok, error, cancelled, refused.

    `session`, `agent`, `tag` and `turn` are what clients said.
    With `team`, the id of a team that you own, you see all requests with its keys; with another team of yours, your
    own. `user` is for admins, and in a team for its owners.
    """

    provider: str | None = None
    endpoint: str | None = None
    api_type: str | None = None
    model: str | None = None
    user: str | None = None
    key: str | None = None
    team: str | None = None
    status: str | None = None
    session: str | None = None
    agent: str | None = None
    tag: str | None = None
    turn: str | None = None
    since: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = msgspec.field(default=None, name="to")


class Query(Narrowed, kw_only=True):
    """Give `cursor` instead of `page` to continue after an answer."""

    cursor: Cursor | None = None


class Grouped(Narrowed, kw_only=True):
    group_by: usage_reports.Step = msgspec.field(default="day", name="groupBy")
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = MOST_ROWS


class Shared(Narrowed, kw_only=True):
    """`groupBy` is what usage is divided by. Without `from`: the last 30 days."""

    group_by: Group = msgspec.field(default="model", name="groupBy")


class Share(Quantities, kw_only=True):
    """The usage of one model, key, session, tag …. `id` is null for usage without one; `name` is the name of what has one,
    of what was deleted the last one, else the id."""

    id: str | None
    name: str
    request_count: int
    error_count: int
    refused_count: int
    total_tokens: int
    cost: str


class SharePage(Page, kw_only=True):
    data: list[Share]


_Names = dict[tuple[Group, str], str]


def _names(entries: Sequence[UsageEntry]) -> _Names:
    """The names of what entries refer to, as they are or as they were last."""
    found = look_up_names(
        {
            "user": {entry.person_id for entry in entries if entry.person_id},
            "key": {entry.key_id for entry in entries if entry.key_id},
            "provider": {entry.provider_id for entry in entries if entry.provider_id},
        }
    )
    return {one: name for one, name in found.items() if name != GONE}


def _fields(entry: UsageEntry, names: _Names) -> dict[str, Any]:
    failed = entry.error_code is not None or entry.error_message is not None
    return {
        "id": entry.request_id,
        "at": instant(entry.at_ms),
        "user": names.get(("user", entry.person_id)),
        "user_id": entry.person_id,
        "key": entry.key_id,
        "key_name": names.get(("key", entry.key_id or "")),
        "team_id": entry.team_id,
        "model": entry.model or (entry.refusal or {}).get("asked", ""),
        "provider": names.get(("provider", entry.provider_id or "")),
        "provider_id": entry.provider_id,
        "deployment_id": entry.deployment_id,
        "endpoint": entry.endpoint,
        "api_type": entry.api_type,
        "stream": entry.stream,
        "status": entry.status,
        "outcome": entry.outcome,
        "calls": entry.refused or 1,
        "error": CallFault(code=entry.error_code, message=entry.error_message) if failed else None,
        "finish_reason": entry.finish_reason,
        "service_tier": entry.service_tier,
        **_quantities(entry),
        "total_tokens": entry.prompt_tokens + entry.completion_tokens,
        "estimated": entry.estimated,
        "cost": money.text(entry.cost_nano),
        "duration_ms": entry.duration_ms,
        "ttft_ms": entry.ttft_ms,
        "session_id": entry.session_id,
        "agent": entry.agent,
        "subagent_id": entry.subagent_id,
        "turn_id": entry.turn_id,
        "tags": entry.tags,
    }


def _quantities(used: object) -> dict[str, int]:
    return {name: getattr(used, name) for name in NAMES}


def _filters(query: Narrowed) -> Filters:
    status = query.status
    if status is not None and status not in OUTCOMES:
        if not (status.isascii() and status.isdigit() and len(status) == 3):
            raise Invalid(f"Enter an HTTP status such as 200, or one of {', '.join(OUTCOMES)}.", "status")
        status_number: int | str | None = int(status)
    else:
        status_number = status
    username = query.user
    person = identity.find(username) if username else None
    return Filters(
        person_id=None if username is None else person.id if person else NOBODY,
        key_id=query.key,
        team_id=query.team,
        model=query.model,
        provider_id=_provider_id(query.provider),
        endpoint=query.endpoint,
        api_type=query.api_type,
        status=status_number,
        session_id=query.session,
        agent=query.agent,
        tag=query.tag,
        turn_id=query.turn,
        from_ms=milliseconds(query.since),
        to_ms=milliseconds(query.until),
    )


def _provider_id(name: str | None) -> str | None:
    """A provider is named by its id or its name, a deleted one by its id."""
    if name is None:
        return None
    provider_id = db.session.scalar(select(Provider.id).where(or_(Provider.id == name, Provider.name == name)))
    return provider_id or name


def _page(query: Query) -> dict[str, Any]:
    limit, number = query.limit, query.page
    try:
        result = requests.search(
            reader(of_teams=query.team is not None),
            filters=_filters(query),
            limit=limit,
            cursor=query.cursor,
            skip=(number - 1) * limit,
        )
    except ReportError as error:
        raise refused(error) from None
    within_reach(result.total, result.entries)
    names = _names(result.entries)
    return {
        "data": [Request(**_fields(entry, names)) for entry in result.entries],
        "page": number,
        "limit": limit,
        "total": result.total,
        "next_cursor": result.next,
    }


@route("GET", "/api/requests", scope="usage:read", query=Query, answer=RequestPage)
def index(query: Query) -> dict[str, Any]:
    """Lists requests, newest first."""
    return _page(query)


class OldQuery(Query, kw_only=True):
    """`start` and `end` are `from` and `to`."""

    start: datetime | None = None
    end: datetime | None = None


@route("GET", "/api/completion_requests", query=OldQuery, answer=RequestPage)
def completions(query: OldQuery) -> dict[str, Any]:
    """Lists requests, newest first, under this list's former name."""
    query.since, query.until = query.since or query.start, query.until or query.end
    return _page(query)


@route("GET", "/usage/admin/recent", scope="admin", query=Query, answer=RequestPage)
def recent(query: Query) -> dict[str, Any]:
    """Lists everyone's last requests, newest first, with the same filters."""
    return _page(query)


@route("GET", "/api/requests/stats", scope="usage:read", query=Grouped, answer=StatPage)
def stats(query: Grouped) -> dict[str, Any]:
    """Returns usage grouped by `groupBy` (hour, day, week or month), oldest first, with the filters of the list.

    Without `from`: the last 24 hours, 30 days, 12 weeks or 12 months.
    """
    try:
        rows = usage_reports.stats(reader(of_teams=query.team is not None), query.group_by, filters=_filters(query))
    except ReportError as error:
        raise refused(error) from None
    return listed([_stat(row) for row in rows])


@route("GET", "/api/usage", scope="usage:read", query=Shared, answer=SharePage)
def shares(query: Shared) -> dict[str, Any]:
    """Returns usage by model, key, team, user, provider, session, agent or tag, most expensive first, with the filters of
    requests. A request counts for each of its tags. What only has refused requests comes last."""
    if query.page * query.limit > requests.COUNTED_UP_TO:
        raise Invalid(f"Pages reach the first {requests.COUNTED_UP_TO:,} rows of this list.", "page")
    filters = _filters(query)
    if filters.from_ms is None:
        first = usage_reports.now_ms() if filters.to_ms is None else filters.to_ms
        filters = msgspec.structs.replace(filters, from_ms=max(0, first - SHARED_DAYS * DAY_MS))
    question = usage_reports.Question(GROUPS[query.group_by], filters, limit=query.page * query.limit)
    [ranking] = usage_reports.rankings(reader(of_teams=query.team is not None), [question], refused=True)
    found = ranking.shares[(query.page - 1) * query.limit :]
    names = look_up_names({query.group_by: {share.name for share in found}})
    return {
        "data": [
            Share(
                id=share.name or None,
                name=names[query.group_by, share.name],
                request_count=share.requests,
                error_count=share.errors,
                refused_count=share.refused,
                **_quantities(share),
                total_tokens=share.total_tokens,
                cost=money.text(share.cost_nano),
            )
            for share in found
        ],
        "page": query.page,
        "limit": query.limit,
        "total": ranking.total,
    }


def _stat(row: PeriodUsage) -> Stat:
    return Stat(
        period_start=row.start,
        period_end=row.end,
        request_count=row.requests,
        error_count=row.errors,
        cancelled_count=row.cancelled,
        refused_count=row.refused,
        **_quantities(row),
        total_tokens=row.total_tokens,
        cost=money.text(row.cost_nano),
        mean_duration_ms=row.mean_duration_ms,
        mean_ttft_ms=row.mean_ttft_ms,
    )


@route("GET", "/api/requests/<id>", scope="usage:read", answer=OneRequest | RefusedRequest)
def show(id: str) -> OneRequest | RefusedRequest:
    """Returns one request by the `x-request-id` of its answer, also one that was refused."""
    entries = requests.entries_of(reader(of_teams=True), id)
    if not entries:
        raise NotFound("This request does not exist.")
    if entries[0].kind == "refusal":
        return _refused(entries[0])
    usage = next((entry for entry in entries if entry.kind == "usage"), entries[0])
    return OneRequest(
        **_fields(usage, _names([usage])),
        unpriced=usage.unpriced,
        attempts=[_try(attempt) for attempt in usage.attempts],
        price_id=usage.price_id,
        overdraft=money.text(usage.overdraft_nano),
        corrections=[
            Correction(kind=entry.kind, at=instant(entry.at_ms), cost=money.text(entry.cost_nano))
            for entry in entries
            if entry is not usage
        ],
    )


def _refused(entry: UsageEntry) -> RefusedRequest:
    refusal, fields = msgspec.convert(entry.refusal, Refusal), _fields(entry, _names([entry]))
    shown = ("id", "at", "user", "user_id", "key", "key_name", "team_id", "model", "endpoint", "calls")
    limit = _limit(refusal, entry.at_ms) if refusal.scope_kind else None
    return RefusedRequest(
        **{name: fields[name] for name in shown},
        status="refused",
        outcome="refused",
        error=CallFault(code=refusal.reason if limit else entry.error_code, message=entry.error_message),
        refusal=limit,
    )


def _limit(refusal: Refusal, at_ms: int) -> Limit:
    limit = Limit(reason=refusal.reason, scope=refusal.scope_kind, id=refusal.scope_id, name=refusal.scope_shown)
    match refusal.reason:
        case "budget":
            limit.limit, limit.spent = money.text(refusal.limit), money.text(max(refusal.spent, 0))
            limit.reserved, limit.needed = money.text(refusal.held), money.text(refusal.amount)
            limit.affordable_tokens = refusal.affordable_tokens
            limit.frees_at = None if refusal.resets_ms is None else instant(refusal.resets_ms)
        case "requests" | "tokens":
            limit.per_minute, limit.frees_at = refusal.limit, instant(at_ms + refusal.retry_ms)
        case "parallel":
            limit.parallel, limit.frees_at = refusal.limit, instant(at_ms + refusal.retry_ms)
    return limit
