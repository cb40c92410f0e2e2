"""Usage reports from the ledger, for pages and the management API.

The reader is the permission (see `planner`). Sums come from the longest rollups that fit and are up to date, and from hours
and single entries at the edges, so that they equal the entries to the millisecond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import desc, func, literal, select, union_all

from app import clock
from app.clock import from_ms
from app.directory import Price
from app.extensions import db
from app.ledger.measures import DAY_MS, HOUR_MS, MEASURES
from app.ledger.rollups import HOURLY
from app.metering import pricing
from app.metering.periods import window_of
from app.metering.quantities import counts_of
from app.reports.planner import (
    LABELS,
    NONE,
    Filters,
    Reader,
    Sums,
    cut_for,
    hours_in,
    something,
    span_of,
    summed,
    sums_of,
    used_in,
)

__all__ = ["NONE", "Filters", "Reader", "Sums"]  # of `planner`; reports take and return them

Period = Literal["day", "week", "month"]
Step = Literal["hour", "day", "week", "month"]
Dimension = Literal[
    "person_id", "key_id", "team_id", "model", "provider_id", "endpoint", "api_type", "session_id", "agent", "tag"
]

Order = Literal["cost_nano", "requests", "tokens", "errors"]

PERIODS: tuple[Period, ...] = get_args(Period)
STEPS: tuple[Step, ...] = get_args(Step)
MOST_PERIODS = 1000  # rows of one report
DETAILS: tuple[Dimension, ...] = ("model", "api_type")
DETAILED = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano")  # measures of details
EARLIER = -1  # stands for the span before, as a window
DEFAULT_STEPS: dict[Step, int] = {"hour": 24, "day": 30, "week": 12, "month": 12}


class ReportError(ValueError):
    """An invalid report was requested. The message is safe to show; `field` names the invalid parameter."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class PeriodUsage(Sums, kw_only=True, gc=True):
    """The sums of one period [start_ms, end_ms) and, if requested, by model and by kind of API."""

    start_ms: int
    end_ms: int
    models: dict[str, Sums] = msgspec.field(default_factory=dict)
    api_types: dict[str, Sums] = msgspec.field(default_factory=dict)

    @property
    def start(self) -> datetime:
        return from_ms(self.start_ms)

    @property
    def end(self) -> datetime:
        return from_ms(self.end_ms)


class Share(Sums, kw_only=True):
    """The sums of one person, model, key …: `name` is its id, a model's name, or empty for usage without one."""

    name: str


Windows = tuple[tuple[int, int], ...]  # [start_ms, end_ms), oldest first, without gaps


class Question(NamedTuple):
    """A ranking to compute: by which dimension, with which filters, in which order, and how many shares.

    If `windows` cover the whole span, the result also contains a series by window, where the same rows give it.
    """

    dimension: Dimension
    filters: Filters = NONE
    order: Order = "cost_nano"
    limit: int = 100
    windows: Windows = ()


class Ranking(NamedTuple):
    """The largest shares, largest first; how many there are (`total`), and how many of them made a request (`active`).

    `series` has their sums by name and start of window; None if other rows must be read for it.
    """

    shares: list[Share]
    total: int
    active: int
    series: dict[str, dict[int, Sums]] | None = None


class Course(NamedTuple):
    """The usage of a span by period, its sums for streaming and non-streaming (`whole`) requests, and the sums of the span
    before it."""

    rows: list[PeriodUsage]
    streams: Sums
    whole: Sums
    before: Sums

    @property
    def sums(self) -> Sums:
        found = Sums()
        found.add(self.streams)
        found.add(self.whole)
        return found


class Summary(msgspec.Struct, kw_only=True):
    """The figures of the admin overview. Today is the UTC day."""

    total_users: int
    active_users_today: int
    requests_today: int
    errors_today: int
    refused_today: int
    tokens_today: int
    cost_nano_today: int


class Repriced(Sums, kw_only=True):
    """A model's usage by one kind of API, with its cost and the cost under another price."""

    api_type: str
    would_nano: int

    @property
    def difference_nano(self) -> int:
        return self.would_nano - self.cost_nano


def now_ms() -> int:
    return clock.now_ms()


# --- usage by period ---------------------------------------------------------------------------------------------


def usage(
    reader: Reader,
    period: Period,
    *,
    periods: int = 30,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
    detailed: bool = False,
) -> list[PeriodUsage]:
    """The usage of the last `periods` calendar periods in `timezone` (an IANA name), oldest first, including empty ones.

    With `detailed` each row has sums by model and kind of API, of the measures `DETAILED` only. The last row is the period of
    `at_ms` (now). Weeks begin on Monday. The span of `filters` narrows the usage, not the list of periods. Raises
    `ReportError` for more than 1,000 periods.
    """
    if not 1 <= periods <= MOST_PERIODS:
        raise ReportError(f"expected 1 to {MOST_PERIODS}", "num_periods")
    windows = [window_of(f"{period}|{timezone}", now_ms() if at_ms is None else at_ms)[1:]]
    while len(windows) < periods and windows[-1][0] > 0:
        windows.append(window_of(f"{period}|{timezone}", windows[-1][0] - 1)[1:])
    return _by_window(reader, filters, windows[::-1], detailed=detailed)


def stats(
    reader: Reader,
    group_by: Step,
    *,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
) -> list[PeriodUsage]:
    """Usage by hour, day, week or month between `filters.from_ms` and `to_ms`, oldest first, including empty groups.

    Without `from_ms`: the last 24 hours, 30 days, 12 weeks or 12 months. Raises `ReportError` for more than 1,000 groups.
    """
    return _by_window(reader, filters, windows_of(group_by, filters, timezone, at_ms), detailed=False)


def course(reader: Reader, group_by: Step, *, filters: Filters, before: Filters) -> Course:
    """The rows of `stats` in UTC and the sums of the span `before`, by one query."""
    windows = windows_of(group_by, filters)
    rows = {start: PeriodUsage(start_ms=start, end_ms=end) for start, end in windows}
    first = max(windows[0][0], filters.from_ms or 0)
    after = windows[-1][1] if filters.to_ms is None else min(windows[-1][1], filters.to_ms)
    now = used_in(reader, filters, first, after, [*rows], of=["stream"])
    then = used_in(reader, before, *span_of(before), [EARLIER], of=["stream"])
    used = union_all(select(now.subquery()), select(then.subquery())).subquery("used")
    found = Course([*rows.values()], Sums(), Sums(), Sums())
    query = select(used.c.window, used.c.stream, *summed(used)).group_by(used.c.window, used.c.stream)
    for row in db.session.execute(query):
        sums = sums_of(row)
        if row.window == EARLIER:
            found.before.add(sums)
        else:
            rows[row.window].add(sums)
            (found.streams if row.stream else found.whole).add(sums)
    return found


def shares_over_time(
    reader: Reader,
    group_by: Step,
    dimension: Dimension,
    names: Sequence[str],
    *,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
    measures: Collection[str] = MEASURES,
) -> dict[str, dict[int, Sums]]:
    """The usage of some models, keys, people … in each group of `stats`, by name and start of group."""
    found: dict[str, dict[int, Sums]] = {name: {} for name in names}
    if not names:
        return found
    first, after, edges = _between(filters, windows_of(group_by, filters, timezone, at_ms))
    used = used_in(
        reader,
        filters,
        first,
        after,
        edges,
        of=[dimension],
        among=(dimension, names),
        measures=measures,
    ).subquery("used")
    query = select(used.c.window, used.c[dimension].label("name"), *summed(used, measures))
    for row in db.session.execute(query.group_by(used.c.window, used.c[dimension])):
        found[row.name or ""][row.window] = sums_of(row, measures)
    return found


def by_hour_of_week(
    reader: Reader,
    *,
    filters: Filters = NONE,
    timezone: str = "UTC",
    at_ms: int | None = None,
    measures: Collection[str] = MEASURES,
) -> list[list[Sums]]:
    """The sums of each hour of each weekday in `timezone`, Monday first: `[weekday][hour]`.

    Hours are whole hours of UTC, placed by their start in `timezone`. Measures that are not in `measures` stay 0.
    """
    first, after = span_of(filters)
    until = min(after, (now_ms() if at_ms is None else at_ms) + 1)
    used = hours_in(reader, filters, first, until, measures).subquery("used")
    query = select(used.c.start_ms, *summed(used, measures)).group_by(used.c.start_ms)
    zone = ZoneInfo(timezone)
    week = [[Sums() for _ in range(24)] for _ in range(7)]
    for start_ms, *numbers in db.session.execute(query):
        begun = from_ms(start_ms).astimezone(zone)
        hour = week[begun.weekday()][begun.hour]
        for name, number in zip(measures, numbers, strict=True):
            setattr(hour, name, getattr(hour, name) + number)
    return week


def windows_of(group_by: Step, filters: Filters = NONE, timezone: str = "UTC", at_ms: int | None = None) -> Windows:
    """The groups of `stats`, oldest first."""
    last = (now_ms() if at_ms is None else at_ms) if filters.to_ms is None else filters.to_ms - 1
    windows = [_step(group_by, timezone, last)]
    while windows[-1][0] > filters.from_ms if filters.from_ms is not None else len(windows) < DEFAULT_STEPS[group_by]:
        if len(windows) == MOST_PERIODS:
            raise ReportError(f"more than {MOST_PERIODS} groups: choose longer ones or a shorter span", "groupBy")
        windows.append(_step(group_by, timezone, windows[-1][0] - 1))
    return tuple(windows[::-1])


def _hold(windows: Windows, filters: Filters) -> bool:
    """Whether windows cover the span of `filters`, as far as it has begun."""
    return bool(windows) and windows[0][0] <= span_of(filters)[0]


def _between(filters: Filters, windows: Windows) -> tuple[int, int, list[int]]:
    """The part of the span of `filters` inside windows: its start, its end, and the starts of the windows."""
    first, after = span_of(filters)
    return max(first, windows[0][0]), min(after, windows[-1][1]), [start for start, _ in windows]


def _step(step: Step, timezone: str, at_ms: int) -> tuple[int, int]:
    if step == "hour":  # whole hours of UTC, also for zones that are half an hour off
        return at_ms - at_ms % HOUR_MS, at_ms - at_ms % HOUR_MS + HOUR_MS
    window = window_of(f"{step}|{timezone}", at_ms)
    return window.start_ms, window.end_ms


def _by_window(
    reader: Reader, filters: Filters, windows: Sequence[tuple[int, int]], *, detailed: bool
) -> list[PeriodUsage]:
    """The sums of consecutive windows."""
    rows = [PeriodUsage(start_ms=start, end_ms=end) for start, end in windows]
    by_start = {row.start_ms: row for row in rows}
    first = max(windows[0][0], filters.from_ms or 0)
    after = windows[-1][1] if filters.to_ms is None else min(windows[-1][1], filters.to_ms)
    if first >= after:
        return rows
    edges = [start for start, _ in windows]
    if not detailed:
        used = used_in(reader, filters, first, after, edges, of=()).subquery("used")
        query = select(used.c.window, *summed(used)).group_by(used.c.window)
        query = query.having(something(summed(used), refused=True))
        for found in db.session.execute(query):
            by_start[found.window].add(sums_of(found))
        return rows
    pieces = []
    for names in _by_cut(reader, [(name, filters) for name in DETAILS]).values():
        used = _once(
            used_in(reader, filters, first, after, edges, of=names, measures=DETAILED),
            ["window", *names],
            len(names),
            DETAILED,
        )
        pieces += [
            select(literal(name).label("detail"), used.c.window, used.c[name].label("name"), *summed(used, DETAILED))
            .group_by(used.c.window, used.c[name])
            .having(something(summed(used, DETAILED)))
            for name in names
        ]
    for detail, start_ms, name, requests, errors, prompt, completion, cost in db.session.execute(union_all(*pieces)):
        row = by_start[start_ms]
        sums = Sums(
            requests=requests, errors=errors, prompt_tokens=prompt, completion_tokens=completion, cost_nano=cost
        )
        if detail == "model":
            row.models[name] = sums
        else:
            row.api_types[name] = sums
            row.add(sums)
    return rows


def _by_cut(
    reader: Reader, asked: Iterable[tuple[Dimension, Filters]]
) -> dict[tuple[Filters, str | None], list[Dimension]]:
    """Group dimensions that one query can read: by their filters and their cut, or what stands apart as one has."""
    found: dict[tuple[Filters, str | None], list[Dimension]] = {}
    for name, filters in asked:
        cut = name if name in LABELS else cut_for(reader, filters, [name])  # labels share no rows with others
        together = found.setdefault((filters, cut), [])
        if name not in together:
            together.append(name)
    return found


def _once(used: Any, groups: Sequence[str], times: int, measures: Collection[str]) -> Any:
    """Usage that is read `times` times, as a CTE grouped by `groups`, so that its rows are read once.

    With keys it is not grouped first: there are about as many keys as rows.
    """
    rows = used.subquery()
    if times == 1:
        return rows
    columns = [rows.c[name] for name in groups]
    if "key_id" in groups:
        return select(*columns, *(rows.c[name] for name in measures)).cte()
    return select(*columns, *summed(rows, measures)).group_by(*columns).cte()


# --- sums over a span ----------------------------------------------------------------------------------------------


def totals(reader: Reader, *, filters: Filters = NONE) -> Sums:
    """The sums of all usage that matches `filters`."""
    used = used_in(reader, filters, *span_of(filters), of=()).subquery("used")
    return sums_of(db.session.execute(select(*summed(used))).one())


def by(
    reader: Reader,
    dimension: Dimension,
    *,
    filters: Filters = NONE,
    order: Order = "cost_nano",
    limit: int = 100,
    names: Sequence[str] | None = None,
    refused: bool = False,
) -> list[Share]:
    """The shares by person, key, team, model, provider, endpoint, kind of API, session, agent or tag, largest first, at most
    `limit`; only of `names` if given. A request counts for each of its tags. With `refused` also those of whom calls were
    refused and nothing else."""
    [found] = rankings(reader, [Question(dimension, filters, order, limit)], names=names, refused=refused)
    return found.shares


def rankings(
    reader: Reader,
    questions: Sequence[Question],
    *,
    names: Sequence[str] | None = None,
    measures: Collection[str] = MEASURES,
    refused: bool = False,
) -> list[Ranking]:
    """Several rankings by one query. Measures that are not in `measures` stay 0; those that show any usage must be in it.
    With `refused` also names of which calls were refused and nothing else.

    Questions over the same rollups read them once.
    """
    if not questions:
        return []
    pieces: list[Any] = []
    for (filters, cut), dimensions in _by_cut(reader, [(one.dimension, one.filters) for one in questions]).items():
        mine = [
            (number, one)
            for number, one in enumerate(questions)
            if one.filters == filters and one.dimension in dimensions
        ]
        among = None if names is None else (dimensions[0], names)
        # Without a cut the rows of all groups are read: about one for each used group and window.
        over = [one.windows for _, one in mine if cut is None and _hold(one.windows, filters)][:1]
        first, after, edges = _between(filters, over[0]) if over else (*span_of(filters), [])
        read = used_in(reader, filters, first, after, edges, of=dimensions, among=among, measures=measures)
        used = _once(read, ["window", *dimensions] if over else dimensions, len(dimensions) + len(over), measures)
        kept = {name: _kept(used, name, measures, refused) for name in dimensions}
        counted = {name: _counted(kept[name]) for name in dimensions}
        for number, one in mine:
            ranked = _ranked(kept[one.dimension], counted[one.dimension], number, one)
            pieces.append(select(ranked))
            if one.windows in over:
                pieces.append(_series(used, ranked, number + len(questions), one.dimension, measures))
    found = [Ranking([], 0, 0) for _ in questions]
    ordered = union_all(*pieces).order_by("question", desc("size"), desc("requests"), "name")
    for number, rows in groupby(db.session.execute(ordered), attrgetter("question")):
        if number < len(questions):
            shares = []
            for row in rows:
                shares.append(Share(name=row.name or "", **dict(zip(measures, row[-len(measures) :], strict=True))))
            found[number] = Ranking(shares, row.total, row.active)
        else:
            ranking = found[number - len(questions)]
            series: dict[str, dict[int, Sums]] = {share.name: {} for share in ranking.shares}
            for row in rows:
                series[row.name or ""][row.size] = sums_of(row, measures)
            found[number - len(questions)] = ranking._replace(series=series)
    return found


def _kept(used: Any, dimension: Dimension, measures: Collection[str], refused: bool) -> Any:
    """The sums of all names with usage, as a CTE. Counting and sorting follow in separate steps: PostgreSQL takes twice as
    long with window functions over sums."""
    name = used.c[dimension]
    sums = select(name.label("name"), *summed(used, measures)).group_by(name).subquery()
    return select(sums).where(something(sums.c, refused=refused)).cte()


def _counted(kept: Any) -> Any:
    """How many names there are, and how many of them made a request."""
    active = func.count().filter(kept.c.requests > 0)
    return select(func.count().label("total"), active.label("active")).select_from(kept).cte()


def _ranked(kept: Any, counted: Any, number: int, question: Question) -> Any:
    """The first names of a question, as rows of the combined result."""
    tokens = kept.c.prompt_tokens + kept.c.completion_tokens
    size = (tokens if question.order == "tokens" else kept.c[question.order]).label("size")
    return (
        select(
            literal(number).label("question"),
            select(counted.c.total).scalar_subquery().label("total"),
            select(counted.c.active).scalar_subquery().label("active"),
            size,
            *kept.c,
        )
        .order_by(size.desc(), kept.c.requests.desc(), kept.c.name)
        .limit(question.limit)
        .subquery()
    )


def _series(used: Any, ranked: Any, number: int, dimension: Dimension, measures: Collection[str]) -> Any:
    """The usage of a question's first names by window, as rows of the combined result: `size` holds the window."""
    name = used.c[dimension]
    return (
        select(
            literal(number).label("question"),
            literal(0).label("total"),
            literal(0).label("active"),
            used.c.window.label("size"),
            name.label("name"),
            *summed(used, measures),
        )
        .where(name.in_(select(ranked.c.name)))
        .group_by(used.c.window, name)
    )


def by_model(reader: Reader, *, filters: Filters = NONE, limit: int = 100) -> list[Share]:
    """The shares by model, highest cost first; `name` is the model's name."""
    return by(reader, "model", filters=filters, limit=limit)


def summary(reader: Reader, *, at_ms: int | None = None) -> Summary:
    """Today's figures of the whole organisation. Raises `PermissionError` for a reader who can't see everything."""
    from app.domain.person import Person

    if not reader.sees_everything:
        raise PermissionError("only people who see everything can read the summary")
    moment = now_ms() if at_ms is None else at_ms
    today = moment - moment % DAY_MS
    used = used_in(reader, NONE, today, today + DAY_MS, of=()).subquery("used")
    active = select(func.count(func.distinct(HOURLY.c.person_id))).where(
        HOURLY.c.start_ms >= today, HOURLY.c.start_ms < today + DAY_MS, HOURLY.c.requests > 0
    )
    people = select(func.count()).select_from(Person)
    row = db.session.execute(select(people.scalar_subquery(), active.scalar_subquery(), *summed(used))).one()
    sums = sums_of(row)
    return Summary(
        total_users=row[0],
        active_users_today=row[1],
        requests_today=sums.requests,
        errors_today=sums.errors,
        refused_today=sums.refused,
        tokens_today=sums.total_tokens,
        cost_nano_today=sums.cost_nano,
    )


def repriced(reader: Reader, model: str, price: Price, *, days: int = 30, at_ms: int | None = None) -> list[Repriced]:
    """The cost of a model's last `days` days under another `price`, by kind of API, highest cost first.

    It is computed from sums of tokens, so it differs from the cost of single requests by rounding: at most half a nano-unit
    each. The price per request applies to each request that did not fail. The period starts on a full hour. Service tiers
    and long prompts are not considered, as sums don't contain them.
    """
    moment = now_ms() if at_ms is None else at_ms
    first = moment - days * DAY_MS
    filters = Filters(model=model, from_ms=first - first % HOUR_MS, to_ms=moment + 1)
    found = []
    for share in by(reader, "api_type", filters=filters):
        used = counts_of(share)
        one = pricing.request_rate(price, used)
        would = pricing.cost_nano(price, used) - one + (share.requests - share.errors) * one
        sums = {name: getattr(share, name) for name in MEASURES}
        found.append(Repriced(api_type=share.name, would_nano=would, **sums))
    return found
