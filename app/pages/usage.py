"""Usage for pages: tiles beside those of the period before, a chart, tables, and how a cost was computed.

A person's own page and the admins' page over everyone show the same things, so both are prepared here. Days, weeks and
months begin at midnight UTC. The usage by hour and weekday is in the time zone that the page asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from sqlalchemy import literal, select, union_all

from app.clock import from_ms, to_ms
from app.domain import audit, identity, keys, teams
from app.domain.person import Person
from app.domain.prices import Price
from app.domain.providers import Provider
from app.domain.search import one_of
from app.extensions import db, transaction
from app.ledger.entries import UsageEntry
from app.ledger.measures import DAY_MS, HOUR_MS
from app.metering import money, periods, pricing
from app.metering.quantities import NAMES, counts_of
from app.reports import latency
from app.reports import usage as usage_reports
from app.reports.planner import TeamReader
from app.reports.usage import Dimension, Filters, PeriodUsage, Question, Reader, Share, Step, Sums
from app.web.request_cache import owned_teams

Metric = Literal["tokens", "requests", "cost", "errors"]
Group = Literal["model", "key", "team", "user", "provider", "session", "agent", "tag"]

METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_NAMES: dict[Metric, str] = {"tokens": "Tokens", "requests": "Requests", "cost": "Cost", "errors": "Errors"}
RANGES = {"1": "Last 24 hours", "7": "Last 7 days", "30": "Last 30 days", "90": "Last 90 days"}
CUSTOM = "custom"
USUAL_STEPS: dict[str, Step] = {"1": "hour", "7": "day", "30": "day", "90": "week"}
LONGEST_DAYS = 366  # of a period
MOST_BARS = 200
HEAT_DAYS = 35  # whole weeks; the hours of longer periods would take too long to read
GROUPS: dict[Group, Dimension] = {
    "model": "model", "key": "key_id", "team": "team_id", "user": "person_id", "provider": "provider_id",
    "session": "session_id", "agent": "agent", "tag": "tag",
}  # fmt: skip
GROUP_NAMES: dict[Group, str] = {
    "model": "Model", "key": "Key", "team": "Team", "user": "User", "provider": "Provider",
    "session": "Session", "agent": "Agent", "tag": "Tag",
}  # fmt: skip
# What clients say of their calls. Single entries are added up for these, so no page does so unasked, nor offers choices.
LABELS: tuple[Group, ...] = ("session", "agent", "tag")
ALL_GROUPS: tuple[Group, ...] = tuple(group for group in get_args(Group) if group not in LABELS)
OWN_GROUPS: tuple[Group, ...] = ("model", "key", "team")
TEAM_GROUPS: tuple[Group, ...] = (*OWN_GROUPS, "user")  # what the owner of a team may group its usage by
NAMELESS: dict[Group, str] = {
    "model": "None", "key": "Access token", "team": "Personal", "user": "Nobody", "provider": "None",
    "session": "No session", "agent": "Not told", "tag": "Untagged",
}  # fmt: skip
PLURALS: dict[str, str] = {
    "model": "models", "key_id": "keys", "team_id": "teams", "person_id": "users", "provider_id": "providers",
    "session_id": "sessions", "agent": "agents", "tag": "tags",
}  # fmt: skip
GONE = "(removed)"
NAMED: dict[Group, tuple[Any, Any]] = {
    "key": (keys.ApiKey.id, keys.ApiKey.name), "team": (teams.Team.id, teams.Team.name),
    "user": (Person.id, Person.username), "provider": (Provider.id, Provider.name),
}  # fmt: skip
AUDITED: dict[Group, str] = {"key": "key", "team": "team", "user": "person", "provider": "provider"}  # in the audit log
ORDERS: dict[Metric, usage_reports.Order] = {
    "tokens": "tokens", "requests": "requests", "cost": "cost_nano", "errors": "errors",
}  # fmt: skip
SERIES = 7  # series of the chart; all others share one more, so that the colours stay distinct
TOP = 20
OFFERED = 200  # choices of a filter
MEASURED: dict[Metric, tuple[str, ...]] = {
    "tokens": ("prompt_tokens", "completion_tokens"), "requests": ("requests",), "cost": ("cost_nano",),
    "errors": ("errors",),
}  # fmt: skip
SHARE_MEASURES = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano")  # of the tables of shares
NOBODY = "-"  # no id: a filter by an unknown name finds nothing


class Period(NamedTuple):
    """The period that a page is about, and the one of the same length before it. Unix ms, half-open."""

    choice: str  # of RANGES, or CUSTOM
    title: str  # "last 30 days"
    from_ms: int
    to_ms: int
    before_ms: int  # where the period before begins
    before_to_ms: int  # as far into the period before as now is into this one
    until_ms: int | None = None  # end of the query; None for a period that reaches to now

    @property
    def first_day(self) -> str:
        return f"{from_ms(self.from_ms):%Y-%m-%d}"

    @property
    def last_day(self) -> str:
        return f"{from_ms(self.to_ms - 1):%Y-%m-%d}"


class Change(NamedTuple):
    """How a figure compares with the period before: in words, and whether that is good (None: neither)."""

    text: str
    good: bool | None = None


class Rankings:
    """Who and what was used most. A page needs several of these answers, so it asks for all of them together."""

    def __init__(self, reader: Reader, questions: Iterable[Question]) -> None:
        distinct = list(dict.fromkeys(questions))
        rankings = usage_reports.rankings(reader, distinct, measures=SHARE_MEASURES)
        self._known = dict(zip(distinct, rankings, strict=True))

    def of(self, question: Question) -> usage_reports.Ranking:
        return self._known[question]


def dearest(group: Group, filters: Filters) -> Question:
    """The question for the most expensive ones. Tables, filters and figures use the same answer."""
    return Question(GROUPS[group], filters, limit=OFFERED)


def charted(group: Group, filters: Filters, metric: Metric, step: Step) -> Question:
    """The question for the `SERIES` largest ones, which the chart shows, and for what each of them used in each
    step."""
    return Question(GROUPS[group], filters, ORDERS[metric], SERIES, usage_reports.windows_of(step, filters))


class Names:
    """The names of models, keys, teams, people and providers, by id. A page looks up each of them once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Group, str], str] = {}
        self._gone: set[tuple[Group, str]] = set()

    def of(self, group: Group, ids: Iterable[str]) -> dict[str, str]:
        distinct = set(ids)
        self.look_up({group: distinct})
        return {id: self._known[group, id] for id in distinct}

    def look_up(self, ids_of: Mapping[Group, Iterable[str]]) -> None:
        """Learns all of these names that are not known yet, by one query."""
        unknown = {group: {id for id in ids if (group, id) not in self._known} for group, ids in ids_of.items()}
        names = _present_names(unknown)
        self._gone |= {one for one, name in names.items() if name == GONE}
        self._known.update(_with_last_names(names))

    def learn(self, group: Group, names: Mapping[str, str]) -> None:
        """Adds names that are known without a query."""
        self._known.update({(group, id): name for id, name in names.items()})

    def known(self, group: Group, ids: Iterable[str]) -> dict[str, str]:
        """Like `of`, without those of which no name is known."""
        return {id: name for id, name in self.of(group, ids).items() if id and name != GONE}

    def is_gone(self, group: Group, id: str) -> bool:
        """Whether this is removed; its name is then the one that it had last."""
        return (group, id) in self._gone


class Cell(NamedTuple):
    """One hour of the week. `grade` is 0 for no usage, at most 5."""

    text: str
    grade: int


class Overview(NamedTuple):
    """The usage of a period, and of the one before it."""

    period: Period
    metric: Metric
    group: Group
    step: Step
    timezone: str
    sums: Sums
    before: Sums
    rows: list[PeriodUsage]
    shares: list[Share]  # of the group, most expensive first
    names: dict[str, str]  # of the shares
    columns: list[str]
    cells: list[list[Any]]  # of the chart's table: the time, then one cell per series
    parts: list[list[Any]]  # of the donut's table: a name, what it used, its share; empty unless there are several
    sample: latency.Sample
    streams: Sums
    others: Sums
    errors: latency.Errors
    refused: latency.Errors
    changes: dict[str, Change]
    week: list[tuple[str, list[Cell]]]
    heat_days: int | None  # how many days the hours cover; None for all

    @property
    def metric_name(self) -> str:
        return METRIC_NAMES[self.metric]

    @property
    def group_name(self) -> str:
        return GROUP_NAMES[self.group]

    @property
    def success(self) -> float | None:
        return success(self.sums)

    @property
    def successes(self) -> list[float]:
        """The success rate of each step of the chart that had requests, as a share."""
        return [rate for row in self.rows if (rate := success(row)) is not None]


class Line(NamedTuple):
    """One factor of a request's cost: `quantity` × `price_nano` for each `per` of its unit = `amount`."""

    what: str
    quantity: int
    unit: str
    price_nano: int
    per: int
    amount: str  # decimal, exact


# --- what a URL asks for ---------------------------------------------------------------------------------------------


def period_from(args: Mapping[str, str], *, default: str = "30", at_ms: int | None = None) -> Period | None:
    """Returns the period that a URL asks for, or the default one if it asks for none. Returns None for invalid days.

    `range` is one of RANGES. `from` and `to` are UTC days, `to` included.
    """
    now_ms = usage_reports.now_ms() if at_ms is None else at_ms
    choice = args.get("range", "")
    if choice == CUSTOM or choice not in RANGES and (args.get("from") or args.get("to")):
        return _custom(args, now_ms)
    choice = choice if choice in RANGES else default
    length = int(choice) * DAY_MS
    if choice == "1":
        first = now_ms - now_ms % HOUR_MS - 23 * HOUR_MS
    else:
        first = now_ms - now_ms % DAY_MS - length + DAY_MS
    title = RANGES[choice][:1].lower() + RANGES[choice][1:]
    return Period(choice, title, first, now_ms + 1, first - length, now_ms + 1 - length)


def _custom(args: Mapping[str, str], now_ms: int) -> Period | None:
    today = from_ms(now_ms).date()
    try:
        last = date.fromisoformat(args["to"]) if args.get("to") else today
        first = date.fromisoformat(args["from"]) if args.get("from") else last - timedelta(days=6)
    except (ValueError, OverflowError):
        return None
    days = (last - first).days + 1
    if not 1 <= days <= LONGEST_DAYS or first > today or first.year < 1971 or last.year > 9000:
        return None
    begun = to_ms(datetime(first.year, first.month, first.day, tzinfo=UTC))
    end = min(begun + days * DAY_MS, now_ms + 1)
    title = _named(first) if days == 1 else f"{_named(first)} to {_named(last)}"
    until = end if end <= now_ms else None
    return Period(CUSTOM, title, begun, end, begun - days * DAY_MS, end - days * DAY_MS, until)


def _named(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def reader_of(person: Person) -> Reader:
    """Returns the person as a reader of the ledger: of their own usage, and of all usage of the teams that they own."""
    return TeamReader(person.id, person.sees_everything, () if person.sees_everything else owned_teams(person))


def record_export(person: Person, what: str, file_format: str, args: Mapping[str, str]) -> None:
    """Records, in a unit of work of its own, that a person takes figures out as a file, and of which period."""
    facts = {"file": what, "format": file_format}
    facts |= {name: args[name][:40] for name in ("range", "from", "to") if args.get(name)}
    transaction(audit.record, person, "usage.export", "usage", "usage", facts=facts)


def chart_from(
    args: Mapping[str, str], period: Period, among: Sequence[Group], usual_zone: str = "UTC"
) -> tuple[Metric, Group, Step, str]:
    """What the chart measures, what it groups by, its steps, and the time zone of the hours. Invalid values become the
    default."""
    metric = next((metric for metric in METRICS if args.get("metric") == metric), METRICS[0])
    group = next((group for group in among if args.get("group") == group), OWN_GROUPS[0])
    step = next((step for step in steps(period) if args.get("by") == step), None)
    zone = args.get("tz", usual_zone)
    return metric, group, step or _usual_step(period), zone if zone in periods.timezones() else usual_zone


def groups(everyone: bool, *, people: bool = False) -> tuple[Group, ...]:
    """What usage can be grouped by: everything over everyone, also people in a team that the reader owns."""
    return ALL_GROUPS if everyone else TEAM_GROUPS if people else OWN_GROUPS


def steps(period: Period) -> list[Step]:
    """The steps that divide a period into a readable number of bars."""
    length = period.to_ms - period.from_ms
    sizes: dict[Step, int] = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 28 * DAY_MS}
    fitting = [step for step, size in sizes.items() if length / size <= MOST_BARS and (step == "hour" or length > size)]
    return fitting or ["hour"]


def _usual_step(period: Period) -> Step:
    possible = steps(period)
    if period.choice in USUAL_STEPS:
        return USUAL_STEPS[period.choice]
    days = (period.to_ms - period.from_ms) / DAY_MS
    step: Step = "hour" if days <= 2 else "day" if days <= 62 else "week"
    return step if step in possible else possible[-1]


def filters_from(
    args: Mapping[str, str], reader: Reader, period: Period | None, *, everyone: bool, people: bool = False
) -> Filters:
    """Returns the filters of a URL. Without `everyone`, and without `people` (all of a team that the reader owns), they
    are limited to the reader's own usage."""
    person_id: str | None = reader.id
    if everyone or people:
        username = args.get("user")
        person = identity.find(username) if username else None
        person_id = None if not username else person.id if person else NOBODY
    return Filters(
        person_id=person_id,
        key_id=args.get("key") or None,
        team_id=args.get("team") or None,
        model=args.get("model") or None,
        provider_id=(args.get("provider") or None) if everyone else None,
        session_id=args.get("session") or None,
        agent=args.get("agent") or None,
        tag=args.get("tag") or None,
        from_ms=period.from_ms if period else None,
        to_ms=period.until_ms if period else None,
    )


# --- what the page shows ---------------------------------------------------------------------------------------------


def overview(
    reader: Reader,
    period: Period,
    filters: Filters,
    *,
    metric: Metric,
    group: Group,
    step: Step,
    timezone: str,
    rankings: Rankings,
    names: Names,
) -> Overview:
    """Returns the usage of `period` that `filters` select. `rankings` know who used most of the group."""
    earlier = msgspec.structs.replace(filters, from_ms=period.before_ms, to_ms=period.before_to_ms)
    dimension = GROUPS[group]
    course = usage_reports.course(reader, step, filters=filters, before=earlier)
    shares = rankings.of(dearest(group, filters)).shares[:TOP]
    most = rankings.of(charted(group, filters, metric, step))
    largest = [share.name for share in most.shares if _measure(share, metric)]
    name_of = names.of(group, {share.name for share in shares} | set(largest))
    parts = most.series
    if parts is None:
        parts = usage_reports.shares_over_time(
            reader, step, dimension, largest, filters=filters, measures=MEASURED[metric]
        )
    columns, cells = _chart(course.rows, dimension, step, largest, parts, name_of, metric, period)
    sums = course.sums
    single = latency.report(reader, filters, earlier)
    heat_from = max(period.from_ms, period.to_ms - period.to_ms % DAY_MS - (HEAT_DAYS - 1) * DAY_MS)
    week = usage_reports.by_hour_of_week(
        reader,
        filters=msgspec.structs.replace(filters, from_ms=heat_from),
        timezone=timezone,
        measures=MEASURED[metric],
    )
    return Overview(
        period, metric, group, step, timezone, sums, course.before, course.rows, shares, name_of, columns, cells,
        _parts(sums, [share for share in most.shares if share.name in largest], name_of, metric, group), single.sample,
        course.streams, course.whole, single.errors, single.refused, _changes(sums, course.before, single.sample, single.before),
        _heat(week, metric),
        HEAT_DAYS if heat_from > period.from_ms else None,
    )  # fmt: skip


def look_up_names(ids_of: Mapping[Group, set[str]]) -> dict[tuple[Group, str], str]:
    """Returns the names of models, keys, teams, people and providers, by group and id. A model's id is its name,
    and so is that of a session, an agent or a tag. What was removed has the name that it had last, as the audit log knows it;
    where that knows none, it is `GONE`."""
    return _with_last_names(_present_names(ids_of))


def _present_names(ids_of: Mapping[Group, set[str]]) -> dict[tuple[Group, str], str]:
    """The names of what exists; what was removed is `GONE`."""
    names: dict[tuple[Group, str], str] = {}
    queries = []
    for group, ids in ids_of.items():
        for id in ids:
            names[group, id] = NAMELESS[group] if not id else GONE if group in NAMED else id
        if group in NAMED and (known_ids := ids - {""}):
            id_of, name_of = NAMED[group]
            queries.append(select(literal(group), id_of, name_of).where(one_of(id_of, known_ids)))
    if queries:
        names |= {(group, id): name for group, id, name in db.session.execute(union_all(*queries))}
    return names


def _with_last_names(names: dict[tuple[Group, str], str]) -> dict[tuple[Group, str], str]:
    """The names, with those that removed ones had last."""
    last: dict[tuple[Group, str], str] = {}
    for group, kind in AUDITED.items():
        if removed := {id for (of, id), name in names.items() if of == group and name == GONE}:
            last |= {(group, id): name for id, name in audit.last_names(kind, removed).items()}
    return names | last


def others(group: Group, filters: Filters) -> Question:
    """The question for what a filter offers: what was used in the period under the other filters."""
    return dearest(group, msgspec.structs.replace(filters, **{GROUPS[group]: None}))


def offered(rankings: Rankings | None, group: Group, filters: Filters) -> set[str]:
    """Returns the ids that a filter offers."""
    chosen: str | None = getattr(filters, GROUPS[group])
    ids = {share.name for share in rankings.of(others(group, filters)).shares} - {""} if rankings else set()
    return ids | ({chosen} if chosen and chosen != NOBODY else set())


def choices(rankings: Rankings | None, names: Names, group: Group, filters: Filters) -> list[tuple[str, str]]:
    """Returns the values and names that a filter offers: what `others` found, or without rankings only the current
    choice.

    People are identified by username, everything else by id. The current choice is offered even if it was not used.
    """
    name_of = names.of(group, offered(rankings, group, filters))
    by_name = sorted(
        (name.casefold(), name, id) for id, name in name_of.items() if group != "user" or not names.is_gone(group, id)
    )
    return [(name if group == "user" else id, name) for _, name, id in by_name]


def _chart(
    rows: list[PeriodUsage], dimension: Dimension, step: Step, charted: list[str], parts: dict[str, dict[int, Sums]],
    names: dict[str, str], metric: Metric, period: Period,
) -> tuple[list[str], list[list[Any]]]:  # fmt: skip
    rest = dimension != "tag" and any(  # a request counts for each of its tags, so that nothing is left over
        _measure(row, metric) - sum(_measure(parts[name].get(row.start_ms, Sums()), metric) for name in charted)
        for row in rows
    )
    cells = []
    for row in rows:
        numbers = [_measure(parts[name].get(row.start_ms, Sums()), metric) for name in charted]
        if rest or not charted:
            numbers.append(_measure(row, metric) - sum(numbers))
        cells.append([label(row.start, step, period), *(_cell(number, metric) for number in numbers)])
    columns = [step.capitalize(), *(names[name] for name in charted)]
    if rest or not charted:
        columns.append(f"Other {PLURALS[dimension]}" if charted else METRIC_NAMES[metric])
    return columns, cells


def _parts(sums: Sums, shares: list[Share], names: dict[str, str], metric: Metric, group: Group) -> list[list[Any]]:
    """The rows of the donut: what each of the largest used and its share of the whole, then all others together. Parts of a
    whole are positive and don't overlap, so credits are left out, and tags, of which a request can have several, have no donut.
    """
    whole = _measure(sums, metric)
    found = [(names[share.name], number) for share in shares if (number := _measure(share, metric)) > 0]
    if group == "tag" or whole <= 0 or not found:
        return []
    if (rest := whole - sum(number for _, number in found)) > 0:
        found.append((f"Other {PLURALS[GROUPS[group]]}", rest))
    return [[name, _cell(number, metric), number / whole] for name, number in found] if len(found) > 1 else []


def label(start: datetime, step: Step, period: Period) -> str:
    """The label of one step of the chart, in a few letters."""
    match step:
        case "hour":
            return f"{start:%H:%M}" if period.choice == "1" else f"{start.day} {start:%b %H:%M}"
        case "day" | "week":
            return f"{start.day} {start:%b}"
        case "month":
            return f"{start:%b %Y}"


def _changes(sums: Sums, before: Sums, sample: latency.Sample, earlier: latency.Sample) -> dict[str, Change]:
    now, then = sample.all, earlier.all
    changes = {
        "requests": change(sums.requests, before.requests),
        "tokens": change(sums.total_tokens, before.total_tokens),
        "cost": change(sums.cost_nano, before.cost_nano),
        "duration": change(sums.mean_duration_ms, before.mean_duration_ms, less_is_good=True),
        "latency": change(now.duration_p50, then.duration_p50, less_is_good=True),
        "ttft": change(now.ttft_p50, then.ttft_p50, less_is_good=True),
        "speed": change(sample.streams.tokens_per_s, earlier.streams.tokens_per_s, less_is_good=False),
    }
    rate, rate_before = success(sums), success(before)
    if rate is not None and rate_before is not None:
        points = round((rate - rate_before) * 100, 1)
        changes["success"] = Change(f"{points:+g} points" if points else "same", None if not points else points > 0)
    return {name: change for name, change in changes.items() if change is not None}


def change(now: float | None, before: float | None, *, less_is_good: bool | None = None) -> Change | None:
    """How a figure changed relative to what it was; None if there is nothing to compare with."""
    if not before or before < 0 or now is None:
        return None
    part = (now - before) / before
    if abs(part) < 0.0005:
        return Change("same")
    text = f"×{now / before:,.0f}" if part >= 9.5 else f"{part * 100:+.{0 if abs(part) >= 0.1 else 1}f}%"
    slight = less_is_good is None or abs(part) < 0.02
    return Change(text, None if slight else (part < 0) == less_is_good)


def success(sums: Sums) -> float | None:
    """The share of requests that did not fail. A request that the client cancelled did not fail."""
    return (sums.requests - sums.errors) / sums.requests if sums.requests else None


def _heat(week: list[list[Sums]], metric: Metric) -> list[tuple[str, list[Cell]]]:
    numbers = [[_measure(sums, metric) for sums in day] for day in week]
    top = max(max(day) for day in numbers)
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    return [
        (day, [Cell(_short(number, metric), min(5, -(-number * 5 // top)) if number > 0 else 0) for number in row])
        for day, row in zip(days, numbers, strict=True)
    ]


def _short(number: int, metric: Metric) -> str:
    """A number that fits a small cell: two or three characters."""
    if not number:
        return ""
    if metric == "cost":
        whole = Decimal(number) / money.NANO
        return f"{whole:.0f}" if whole >= 10 else f"{whole:.2f}" if whole >= Decimal("0.01") else "<.01"
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.0f}{letter}" if number >= 10 * size else f"{number / size:.1f}{letter}"
    return str(number)


# --- files -----------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the export: one group in one step of the period."""

    period: PeriodUsage
    share: Share
    name: str


def export_columns(group: Group) -> dict[str, Any]:
    """The columns of the export; money as decimal text."""
    named = {} if group not in NAMED else {f"{group}_id": lambda row: row.share.name or None}
    return {
        "period_start": lambda row: row.period.start,
        "period_end": lambda row: row.period.end,
        **named,
        group: lambda row: row.name,
        "requests": lambda row: row.share.requests,
        "errors": lambda row: row.share.errors,
        "cancelled": lambda row: row.share.cancelled,
        "refused": lambda row: row.share.refused,
        **{name: attrgetter(f"share.{name}") for name in NAMES},
        "cost": lambda row: money.text(row.share.cost_nano),
        "mean_duration_ms": lambda row: row.share.mean_duration_ms,
        "mean_ttft_ms": lambda row: row.share.mean_ttft_ms,
    }


def every_row(reader: Reader, filters: Filters, step: Step, group: Group) -> Iterator[Row]:
    """Yields the export's lines, step by step, oldest first. Steps and groups without usage have no line."""
    for step_sums in usage_reports.stats(reader, step, filters=filters):
        if not (step_sums.requests or step_sums.cost_nano or step_sums.refused):
            continue
        within = msgspec.structs.replace(
            filters,
            from_ms=max(step_sums.start_ms, filters.from_ms or 0),
            to_ms=min(step_sums.end_ms, filters.to_ms or step_sums.end_ms),
        )
        shares = usage_reports.by(reader, GROUPS[group], filters=within, limit=100_000, refused=True)
        for start in range(0, len(shares), OFFERED):
            batch = shares[start : start + OFFERED]
            names = look_up_names({group: {share.name for share in batch}})
            for share in batch:
                yield Row(step_sums, share, names[group, share.name])


# --- single requests -------------------------------------------------------------------------------------------------


def arithmetic(entry: UsageEntry, price: Price) -> list[Line]:
    """How an entry's cost follows from its price: the sum of the lines, rounded once, half up, to a nano-unit."""
    record, used, tier = price.record(), counts_of(entry), entry.service_tier
    lines = [
        Line(
            part.quantity.title, part.number, part.quantity.unit, part.rate, part.quantity.per,
            _decimal(Decimal(part.number * part.rate) / part.quantity.per),
        )
        for part in pricing.parts_of(record, used, tier)
    ]  # fmt: skip
    one = pricing.request_rate(record, used, tier)
    if one and entry.cost_nano:
        lines.append(Line("Request", 1, "request", one, 1, _decimal(Decimal(one))))
    return lines


def _measure(sums: Sums, metric: Metric) -> int:
    match metric:
        case "tokens":
            return sums.total_tokens
        case "requests":
            return sums.requests
        case "cost":
            return sums.cost_nano
        case "errors":
            return sums.errors


def _cell(number: int, metric: Metric) -> Any:
    return {"nano": number, "value": money.text(number)} if metric == "cost" else number


def _decimal(nano: Decimal) -> str:
    text = f"{nano / money.NANO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
