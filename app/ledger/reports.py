"""What was used, read from the books for pages and for the management API.

The reader is the permission: a person's own usage, or everybody's for those who see everything. Sums come from the
longest rollups that fit and are known to be up to date, from hours and single entries at the edges, so that they
equal the entries to the millisecond.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from app.directory import Price
from app.extensions import db
from app.ledger.posting import ENTRY, UsageEntry
from app.ledger.rollups import (
    DAY_MS,
    DIMENSIONS,
    HOUR_MS,
    HOURLY,
    KINDS,
    MEASURES,
    ROLLUP,
    Kind,
    derived_before,
    entry_measures,
    period_start,
)
from app.metering import pricing
from app.metering.periods import FOR_EVER_MS, window_of

Period = Literal["day", "week", "month"]
Step = Literal["hour", "day", "week", "month"]
Dimension = Literal["person_id", "key_id", "team_id", "model", "provider_id", "endpoint", "api_type"]

PERIODS: tuple[Period, ...] = get_args(Period)
STEPS: tuple[Step, ...] = get_args(Step)
MOST_PERIODS = 1000  # rows of one report
COUNTED_UP_TO = 10_000  # entries of a list that are counted exactly
NEWEST = 10_000  # requests of which the newest are looked at one by one
DEFAULT_STEPS: dict[Step, int] = {"hour": 24, "day": 30, "week": 12, "month": 12}


class ReportError(ValueError):
    """A report that cannot be made; the message is safe to show and `field` names what was asked wrongly."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Reader(Protocol):
    """Who reads: `app.domain.identity.Person` is one."""

    @property
    def id(self) -> Any: ...

    @property
    def sees_everything(self) -> bool: ...


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is narrowed to; None means all. Times in Unix ms, the span half-open: [from_ms, to_ms).

    `status` is an HTTP status, or "ok", "error", "cancelled".
    """

    person_id: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    model: str | None = None
    provider_id: str | None = None
    endpoint: str | None = None
    api_type: str | None = None
    status: int | str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


NONE = Filters()

# What came later about a request, and what put a counter right, are entries of the books but no requests.
_IS_REQUEST = ENTRY.c.kind == "usage"


class Sums(msgspec.Struct, kw_only=True):
    """Sums over some usage: counts of requests and tokens, money in nano-units, times in ms."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    audio_ms: int = 0
    cost_nano: int = 0
    overdraft_nano: int = 0
    duration_ms: int = 0
    ttft_ms: int = 0
    ttft_count: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def mean_duration_ms(self) -> float | None:
        """The mean duration of a request in ms; None without requests."""
        return self.duration_ms / self.requests if self.requests else None

    @property
    def mean_ttft_ms(self) -> float | None:
        """The mean time to the first token in ms, of the requests that had one."""
        return self.ttft_ms / self.ttft_count if self.ttft_count else None

    def add(self, other: Sums) -> None:
        for name in MEASURES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class PeriodUsage(Sums, kw_only=True):
    """The sums of one period [start_ms, end_ms), with the same by model and by kind of API."""

    start_ms: int
    end_ms: int
    models: dict[str, Sums] = msgspec.field(default_factory=dict)
    api_types: dict[str, Sums] = msgspec.field(default_factory=dict)

    @property
    def start(self) -> datetime:
        return datetime.fromtimestamp(self.start_ms / 1000, UTC)

    @property
    def end(self) -> datetime:
        return datetime.fromtimestamp(self.end_ms / 1000, UTC)


class Share(Sums, kw_only=True):
    """The sums of one person, model, key …: `name` is its id (a model's own name), empty for usage without one."""

    name: str


class Summary(msgspec.Struct, kw_only=True):
    """The first numbers an admin wants to see. Today is the UTC day."""

    total_users: int
    active_users_today: int
    requests_today: int
    errors_today: int
    tokens_today: int
    cost_nano_today: int


class Repriced(Sums, kw_only=True):
    """The usage of a model by one kind of API: what it cost, and what it would have cost under another price."""

    api_type: str
    would_nano: int

    @property
    def difference_nano(self) -> int:
        return self.would_nano - self.cost_nano


class KeyUse(NamedTuple):
    """What a key was used for so far: nano-units, requests, and when it was last used (Unix ms)."""

    cost_nano: int
    requests: int
    last_used_ms: int


class Page(msgspec.Struct, kw_only=True):
    """Some entries of a list, newest first; `next` asks for those that follow, `total` is None beyond 10,000."""

    entries: list[UsageEntry]
    next: str | None
    total: int | None


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- usage by period ---------------------------------------------------------------------------------------------


def usage(
    reader: Reader,
    period: Period,
    *,
    periods: int = 30,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
) -> list[PeriodUsage]:
    """The last `periods` calendar periods of `timezone` (an IANA name), oldest first, empty ones too.

    The last row is the period that holds `at_ms` (now). Weeks begin on Monday. The span of `filters` narrows what is
    counted, not which periods are shown. Raises `ReportError` for more than 1,000 periods.
    """
    if not 1 <= periods <= MOST_PERIODS:
        raise ReportError(f"expected 1 to {MOST_PERIODS}", "num_periods")
    windows = [window_of(f"{period}|{timezone}", now_ms() if at_ms is None else at_ms)[1:]]
    while len(windows) < periods and windows[-1][0] > 0:
        windows.append(window_of(f"{period}|{timezone}", windows[-1][0] - 1)[1:])
    return _by_window(reader, filters, windows[::-1], detailed=True)


def stats(
    reader: Reader,
    group_by: Step,
    *,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
) -> list[PeriodUsage]:
    """Usage grouped by hour, day, week or month between `filters.from_ms` and `to_ms`, oldest first, empty ones too.

    Without a beginning: the last 24 hours, 30 days, 12 weeks or 12 months. Raises `ReportError` for more than
    1,000 groups.
    """
    last = (now_ms() if at_ms is None else at_ms) if filters.to_ms is None else filters.to_ms - 1
    windows = [_step(group_by, timezone, last)]
    while windows[-1][0] > filters.from_ms if filters.from_ms is not None else len(windows) < DEFAULT_STEPS[group_by]:
        if len(windows) == MOST_PERIODS:
            raise ReportError(f"more than {MOST_PERIODS} groups: choose longer ones or a shorter span", "groupBy")
        windows.append(_step(group_by, timezone, windows[-1][0] - 1))
    return _by_window(reader, filters, windows[::-1], detailed=False)


def _step(step: Step, timezone: str, at_ms: int) -> tuple[int, int]:
    if step == "hour":  # whole hours of UTC: clocks that stand half an hour beside still show 60 minutes
        return at_ms - at_ms % HOUR_MS, at_ms - at_ms % HOUR_MS + HOUR_MS
    window = window_of(f"{step}|{timezone}", at_ms)
    return window.start_ms, window.end_ms


def _by_window(
    reader: Reader, filters: Filters, windows: Sequence[tuple[int, int]], *, detailed: bool
) -> list[PeriodUsage]:
    """The sums of windows that follow one another without gaps."""
    rows = [PeriodUsage(start_ms=start, end_ms=end) for start, end in windows]
    by_start = {row.start_ms: row for row in rows}
    first = max(windows[0][0], filters.from_ms or 0)
    after = windows[-1][1] if filters.to_ms is None else min(windows[-1][1], filters.to_ms)
    if first >= after:
        return rows
    edges = [start for start, _ in windows]
    details = ("model", "api_type") if detailed else ()
    used = _used(reader, filters, first, after, edges).subquery("used")
    query = select(used.c.window, *(used.c[name] for name in details), *_summed(used)).group_by(
        used.c.window, *(used.c[name] for name in details)
    )
    for found in db.session.execute(query.having(_something(used))):
        sums = _sums(found)
        row = by_start[found.window]
        row.add(sums)
        if detailed:
            row.models.setdefault(found.model, Sums()).add(sums)
            row.api_types.setdefault(found.api_type, Sums()).add(sums)
    return rows


# --- sums over a span ----------------------------------------------------------------------------------------------


def totals(reader: Reader, *, filters: Filters = NONE) -> Sums:
    """The sums over everything that `filters` let through."""
    used = _used(reader, filters, *_span(filters)).subquery("used")
    return _sums(db.session.execute(select(*_summed(used))).one())


def by(
    reader: Reader,
    dimension: Dimension,
    *,
    filters: Filters = NONE,
    order: Literal["cost_nano", "requests", "tokens"] = "cost_nano",
    limit: int = 100,
) -> list[Share]:
    """The sums by person, key, team, model, provider, endpoint or kind of API, largest first, at most `limit`."""
    used = _used(reader, filters, *_span(filters)).subquery("used")
    summed = {column.name: column for column in _summed(used)}
    size = func.sum(used.c.prompt_tokens + used.c.completion_tokens) if order == "tokens" else summed[order].element
    query = (
        select(used.c[dimension].label("name"), *summed.values())
        .group_by(used.c[dimension])
        .having(_something(used))
        .order_by(size.desc(), func.sum(used.c.requests).desc(), used.c[dimension])
        .limit(limit)
    )
    return [
        Share(name=found.name or "", **{name: int(getattr(found, name) or 0) for name in MEASURES})
        for found in db.session.execute(query)
    ]


def by_model(reader: Reader, *, filters: Filters = NONE, limit: int = 100) -> list[Share]:
    """The sums of each model, dearest first; `name` is the model's name."""
    return by(reader, "model", filters=filters, limit=limit)


def top_users(reader: Reader, *, filters: Filters = NONE, limit: int = 10) -> list[Share]:
    """Who used most, dearest first; `name` is the person's id."""
    return by(reader, "person_id", filters=filters, limit=limit)


def top_models(reader: Reader, *, filters: Filters = NONE, limit: int = 10) -> list[Share]:
    """Which models were used most, by requests."""
    return by(reader, "model", filters=filters, order="requests", limit=limit)


def summary(reader: Reader, *, at_ms: int | None = None) -> Summary:
    """The day's numbers over everyone. Raises `PermissionError` for a reader who may not see everything."""
    from app.domain.identity import Person

    if not reader.sees_everything:
        raise PermissionError("the summary is for admins")
    moment = now_ms() if at_ms is None else at_ms
    today = moment - moment % DAY_MS
    sums = totals(reader, filters=Filters(from_ms=today, to_ms=today + DAY_MS))
    active = db.session.scalar(
        select(func.count(func.distinct(HOURLY.c.person_id))).where(
            HOURLY.c.start_ms >= today, HOURLY.c.start_ms < today + DAY_MS, HOURLY.c.requests > 0
        )
    )
    return Summary(
        total_users=db.session.scalar(select(func.count()).select_from(Person)) or 0,
        active_users_today=active or 0,
        requests_today=sums.requests,
        errors_today=sums.errors,
        tokens_today=sums.total_tokens,
        cost_nano_today=sums.cost_nano,
    )


def repriced(reader: Reader, model: str, price: Price, *, days: int = 30, at_ms: int | None = None) -> list[Repriced]:
    """What the last `days` days of a model would have cost under `price`, by kind of API, dearest first.

    It is counted from the sums of tokens, so that it differs from what single requests would have been charged by
    their roundings alone: at most half a nano-unit each. The price of a request counts for all that did not fail.
    The span begins with an hour. Pictures and audio are left out, as they are charged nothing.
    """
    moment = now_ms() if at_ms is None else at_ms
    first = moment - days * DAY_MS
    filters = Filters(model=model, from_ms=first - first % HOUR_MS, to_ms=moment + 1)
    of_tokens = msgspec.structs.replace(price, per_request=None)
    found = []
    for share in by(reader, "api_type", filters=filters):
        tokens = pricing.cost_nano(of_tokens, share.prompt_tokens, share.cached_tokens, share.completion_tokens)
        would = tokens + (share.requests - share.errors) * (price.per_request or 0)
        sums = {name: getattr(share, name) for name in MEASURES}
        found.append(Repriced(api_type=share.name, would_nano=would, **sums))
    return found


def use_of_keys(reader: Reader, key_ids: Iterable[str], *, filters: Filters = NONE) -> dict[str, KeyUse]:
    """What each key spent in the span of `filters` (all time) and when it was last used; unused ones are left out."""
    last_used = last_use(reader, key_ids)
    if not last_used:
        return {}
    used = _used(reader, filters, *_span(filters), keys=sorted(last_used)).subquery("used")
    query = select(used.c.key_id, func.sum(used.c.cost_nano), func.sum(used.c.requests)).group_by(used.c.key_id)
    sums = {row[0]: (int(row[1]), int(row[2])) for row in db.session.execute(query)}
    return {key_id: KeyUse(*sums.get(key_id, (0, 0)), last) for key_id, last in last_used.items()}


def last_use(reader: Reader, key_ids: Iterable[str]) -> dict[str, int]:
    """When each key was last used, Unix ms; unused ones are left out."""
    last_used: dict[str, int] = {}
    for key_id in set(key_ids):  # a step into the index each; grouped it would read every entry of the keys
        query = select(ENTRY.c.at_ms).where(ENTRY.c.key_id == key_id, _IS_REQUEST, *_allowed(reader, ENTRY))
        last = db.session.scalar(query.order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc()).limit(1))
        if last is not None:
            last_used[key_id] = last
    return last_used


def use_of_secrets(reader: Reader, key_id: str) -> dict[str, int]:
    """When each secret of a key was last presented, Unix ms, among the key's last 10,000 requests.

    A secret that none of these presented is left out.
    """
    newest = (
        select(ENTRY.c.secret_id, ENTRY.c.at_ms)
        .where(ENTRY.c.key_id == key_id, _IS_REQUEST, *_allowed(reader, ENTRY))
        .order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc())
        .limit(NEWEST)
        .subquery("newest")
    )
    query = (
        select(newest.c.secret_id, func.max(newest.c.at_ms))
        .where(newest.c.secret_id.is_not(None))
        .group_by(newest.c.secret_id)
    )
    return {str(secret_id): int(at_ms) for secret_id, at_ms in db.session.execute(query)}


# --- single requests -------------------------------------------------------------------------------------------------


def requests(
    reader: Reader, *, filters: Filters = NONE, limit: int = 50, cursor: str | None = None, skip: int = 0
) -> Page:
    """The requests that `filters` let through, newest first: after `cursor` (a former page's `next`) or `skip` of them.

    Raises `ReportError` for a cursor that is none.
    """
    where = [_IS_REQUEST, *_allowed(reader, ENTRY), *_narrowed(filters, ENTRY)]
    if filters.from_ms is not None:
        where.append(ENTRY.c.at_ms >= filters.from_ms)
    if filters.to_ms is not None:
        where.append(ENTRY.c.at_ms < filters.to_ms)
    counted = db.session.scalar(
        select(func.count()).select_from(
            select(literal(1)).select_from(ENTRY).where(*where).limit(COUNTED_UP_TO + 1).subquery()
        )
    )
    query = select(UsageEntry).where(*where).order_by(ENTRY.c.at_ms.desc(), ENTRY.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        at_ms, id = _position(cursor)
        query = query.where(or_(ENTRY.c.at_ms < at_ms, and_(ENTRY.c.at_ms == at_ms, ENTRY.c.id < id)))
    elif skip:
        query = query.offset(skip)
    entries = list(db.session.scalars(query))
    following = None
    if len(entries) > limit:
        entries = entries[:limit]
        following = _cursor(entries[-1]) if entries else None
    total = counted if counted is not None and counted <= COUNTED_UP_TO else None
    return Page(entries=entries, next=following, total=total)


def request(reader: Reader, request_id: str) -> list[UsageEntry]:
    """All entries of one request: itself, then what was booked later; none when it is not the reader's to see.

    The repair of a counter has an id like a request, and is none.
    """
    query = select(UsageEntry).where(
        ENTRY.c.request_id == request_id, ENTRY.c.kind != "repair", *_allowed(reader, ENTRY)
    )
    return list(db.session.scalars(query.order_by(~_IS_REQUEST, ENTRY.c.id)))


def _cursor(entry: UsageEntry) -> str:
    return base64.urlsafe_b64encode(f"{entry.at_ms}.{entry.id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, int]:
    try:
        spelled = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        at_ms, id = (int(part) for part in spelled.split("."))
    except ValueError:
        raise ReportError("not a cursor of this list", "cursor") from None
    if not (0 <= at_ms < 2**63 and 0 <= id < 2**63):
        raise ReportError("not a cursor of this list", "cursor")
    return at_ms, id


# --- how a span is put together --------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """Where sums of a certain grain are read: a table, its column of beginnings, and a condition of its own."""

    table: Table
    kind: Kind | None = None

    @property
    def moment(self) -> ColumnElement[int]:
        return cast("ColumnElement[int]", self.table.c.at_ms if self.table is ENTRY else self.table.c.start_ms)


_ENTRIES, _HOURS, _DAYS = _Source(ENTRY), _Source(HOURLY), _Source(ROLLUP, "day")


def _span(filters: Filters) -> tuple[int, int]:
    return filters.from_ms or 0, FOR_EVER_MS if filters.to_ms is None else filters.to_ms


def _used(
    reader: Reader, filters: Filters, first: int, after: int, edges: Sequence[int] = (), keys: Sequence[str] = ()
) -> Any:
    """A query of the usage in [first, after): dimensions, measures and, given the windows' beginnings, the window.

    It reads the coarsest rollups that fit between the edges and are up to date, finer ones beside them.
    """
    sources = [_ENTRIES]
    if filters.status is None and all(edge % HOUR_MS == 0 for edge in edges):
        sources.append(_HOURS)
        if all(edge % DAY_MS == 0 for edge in edges):
            sources.append(_DAYS)
            for kind in KINDS[1:]:
                if len(edges) > 1 and {period_start(kind, edge) for edge in edges} == set(edges):
                    sources.append(_Source(ROLLUP, kind))
    fresh = derived_before(db.session.connection()) if len(sources) > 2 else None
    pieces = [
        _piece(reader, filters, source, start, end, edges).where(*([source.table.c.key_id.in_(keys)] if keys else []))
        for source, start, end in _split(sources, first, after, fresh)
    ]
    return union_all(*pieces) if len(pieces) > 1 else pieces[0]


def _split(sources: Sequence[_Source], first: int, after: int, fresh: int | None) -> list[tuple[_Source, int, int]]:
    """[first, after) as parts, each read from the coarsest source that fits; `fresh` is the first underived hour."""
    source = sources[-1]
    if source.table is ENTRY or first >= after:
        return [(source, first, after)]
    end = after
    if source.kind is not None and fresh is not None:
        end = min(end, fresh)
    start, end = _ceiling(source, first), _floor(source, end)
    if start >= end:
        return _split(sources[:-1], first, after, fresh)
    parts = [(source, start, end)]
    if first < start:
        parts = [*_split(sources[:-1], first, start, fresh), *parts]
    if end < after:
        parts += _split(sources[:-1], end, after, fresh)
    return parts


def _floor(source: _Source, at_ms: int) -> int:
    if at_ms >= FOR_EVER_MS:
        return at_ms  # the end of time is the end of any period
    return period_start(source.kind, at_ms) if source.kind else at_ms - at_ms % HOUR_MS


def _ceiling(source: _Source, at_ms: int) -> int:
    if at_ms == 0 or at_ms >= FOR_EVER_MS:
        return at_ms  # so is its beginning
    if source.kind is None:
        return -(-at_ms // HOUR_MS) * HOUR_MS
    start = period_start(source.kind, at_ms)
    return start if start == at_ms else window_of(f"{source.kind}|UTC", at_ms).end_ms


def _piece(
    reader: Reader, filters: Filters, source: _Source, start: int, end: int, edges: Sequence[int]
) -> Select[Any]:
    table = source.table
    measures = entry_measures(ENTRY) if table is ENTRY else {name: table.c[name] for name in MEASURES}
    window = _window(source.moment, edges) if edges else null()
    return select(
        window.label("window"),
        *(table.c[name] for name in DIMENSIONS),
        *(measures[name].label(name) for name in MEASURES),
    ).where(
        source.moment >= start,
        source.moment < end,
        *([table.c.kind == source.kind] if source.kind else []),
        *_allowed(reader, table),
        *_narrowed(filters, table),
    )


def _window(moment: ColumnElement[int], edges: Sequence[int]) -> ColumnElement[int]:
    """The beginning of the window that holds `moment`: a balanced tree of comparisons, as windows may be many."""
    if len(edges) == 1:
        return literal(edges[0])
    middle = len(edges) // 2
    return case(
        (moment < literal(edges[middle]), _window(moment, edges[:middle])),
        else_=_window(moment, edges[middle:]),
    )


def _allowed(reader: Reader, table: Table) -> list[ColumnElement[bool]]:
    if reader.sees_everything:
        return []
    return [table.c.person_id == reader.id] if reader.id else [false()]


def _narrowed(filters: Filters, table: Table) -> list[ColumnElement[bool]]:
    names = ("person_id", "key_id", "team_id", "model", "provider_id", "endpoint", "api_type")
    where = [table.c[name] == value for name in names if (value := getattr(filters, name)) is not None]
    if filters.status is not None:  # entries only, see `_used`
        column = ENTRY.c.status if isinstance(filters.status, int) else ENTRY.c.outcome
        where.append(column == filters.status)
    return where


def _something(used: Any) -> ColumnElement[bool]:
    """Whether a group has any usage at all: the repair of a counter is booked without."""
    return or_(
        *(func.sum(used.c[name]) != 0 for name in ("requests", "cost_nano", "prompt_tokens", "completion_tokens"))
    )


def _summed(used: Any) -> list[Any]:
    return [func.sum(used.c[name]).label(name) for name in MEASURES]


def _sums(found: Any) -> Sums:
    return Sums(**{name: int(getattr(found, name) or 0) for name in MEASURES})
