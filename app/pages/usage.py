"""Usage arranged for a page: tiles beside those of the period before, a chart, tables, and the sum behind a cost.

The person's own page and the admins' one over everyone show the same things, so what they show is put together here.
Days, weeks and months begin at midnight UTC; the hours of the week are told in the zone that is asked for.
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
from app.domain import identity, keys, teams
from app.domain.catalog import Price
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.search import one_of
from app.extensions import db
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
Group = Literal["model", "key", "team", "user", "provider"]

METRICS: tuple[Metric, ...] = get_args(Metric)
METRIC_NAMES: dict[Metric, str] = {"tokens": "Tokens", "requests": "Requests", "cost": "Cost", "errors": "Errors"}
RANGES = {"1": "Last 24 hours", "7": "Last 7 days", "30": "Last 30 days", "90": "Last 90 days"}
CUSTOM = "custom"
USUAL_STEPS: dict[str, Step] = {"1": "hour", "7": "day", "30": "day", "90": "week"}
LONGEST_DAYS = 366  # of a span
MOST_BARS = 200
HEAT_DAYS = 35  # whole weeks; the hours of longer spans would be many to read
GROUPS: dict[Group, Dimension] = {
    "model": "model", "key": "key_id", "team": "team_id", "user": "person_id", "provider": "provider_id",
}  # fmt: skip
GROUP_NAMES: dict[Group, str] = {
    "model": "Model", "key": "Key", "team": "Team", "user": "User", "provider": "Provider",
}  # fmt: skip
ALL_GROUPS: tuple[Group, ...] = get_args(Group)
OWN_GROUPS: tuple[Group, ...] = ("model", "key", "team")
TEAM_GROUPS: tuple[Group, ...] = (*OWN_GROUPS, "user")  # what an owner of a team may tell apart in it
NAMELESS: dict[Group, str] = {
    "model": "None", "key": "Access token", "team": "Personal", "user": "Nobody", "provider": "None",
}  # fmt: skip
PLURALS: dict[str, str] = {
    "model": "models", "key_id": "keys", "team_id": "teams", "person_id": "users", "provider_id": "providers",
}  # fmt: skip
GONE = "(removed)"
NAMED: dict[Group, tuple[Any, Any]] = {
    "key": (keys.ApiKey.id, keys.ApiKey.name), "team": (teams.Team.id, teams.Team.name),
    "user": (Person.id, Person.username), "provider": (Provider.id, Provider.name),
}  # fmt: skip
ORDERS: dict[Metric, usage_reports.Order] = {
    "tokens": "tokens", "requests": "requests", "cost": "cost_nano", "errors": "errors",
}  # fmt: skip
SERIES = 7  # that the chart tells apart; the others are one series, so that its colours stay distinct
TOP = 20
OFFERED = 200  # choices of a filter
MEASURED: dict[Metric, tuple[str, ...]] = {
    "tokens": ("prompt_tokens", "completion_tokens"), "requests": ("requests",), "cost": ("cost_nano",),
    "errors": ("errors",),
}  # fmt: skip
TOLD = ("requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano")  # by the tables of shares
NOBODY = "-"  # no id: filtering by a name that nothing has finds nothing


class Span(NamedTuple):
    """The stretch of time that a page is about, and the one of the same length before it. Unix ms, half-open."""

    choice: str  # of RANGES, or CUSTOM
    title: str  # "last 30 days"
    from_ms: int
    to_ms: int
    before_ms: int  # where the one before begins
    before_to_ms: int  # as far into it as now is into this one
    until_ms: int | None = None  # its end in the books, where one that reaches to now has none: nothing comes after now

    @property
    def first_day(self) -> str:
        return f"{from_ms(self.from_ms):%Y-%m-%d}"

    @property
    def last_day(self) -> str:
        return f"{from_ms(self.to_ms - 1):%Y-%m-%d}"


class Change(NamedTuple):
    """How a figure compares with the period before: in words, and whether that is welcome (None: neither)."""

    text: str
    good: bool | None = None


class Rankings:
    """Who and what was used most. A page tells several things from the answers, so it asks for all of them at once."""

    def __init__(self, reader: Reader, questions: Iterable[Question]) -> None:
        asked = list(dict.fromkeys(questions))
        found = usage_reports.rankings(reader, asked, measures=TOLD)
        self._known = dict(zip(asked, found, strict=True))

    def of(self, question: Question) -> usage_reports.Ranking:
        return self._known[question]


def dearest(group: Group, filters: Filters) -> Question:
    """The question for the dearest ones: tables, filters and numbers tell from the same answer."""
    return Question(GROUPS[group], filters, limit=OFFERED)


def charted(group: Group, filters: Filters, metric: Metric, step: Step) -> Question:
    """The question for those that the chart tells apart, `SERIES` at most, and for what they had in each step."""
    return Question(GROUPS[group], filters, ORDERS[metric], SERIES, usage_reports.windows_of(step, filters))


class Names:
    """What models, keys, teams, people and providers are called, by their ids: looked up once a page."""

    def __init__(self) -> None:
        self._known: dict[tuple[Group, str], str] = {}

    def of(self, group: Group, ids: Iterable[str]) -> dict[str, str]:
        wanted = set(ids)
        self.look_up({group: wanted})
        return {id: self._known[group, id] for id in wanted}

    def look_up(self, wanted: Mapping[Group, Iterable[str]]) -> None:
        """Learns what is not known yet of all these, by one query."""
        unknown = {group: {id for id in ids if (group, id) not in self._known} for group, ids in wanted.items()}
        self._known.update(shown(unknown))

    def learn(self, group: Group, names: Mapping[str, str]) -> None:
        """Names that are known without looking them up."""
        self._known.update({(group, id): name for id, name in names.items()})

    def there_are(self, group: Group, ids: Iterable[str]) -> dict[str, str]:
        """The same without those that are gone."""
        return {id: name for id, name in self.of(group, ids).items() if id and name != GONE}


class Cell(NamedTuple):
    """An hour of the week."""

    text: str
    grade: int  # 0 for nothing, to 5


class Overview(NamedTuple):
    """The usage of a span, and of the one before it."""

    span: Span
    metric: Metric
    group: Group
    step: Step
    timezone: str
    sums: Sums
    before: Sums
    rows: list[PeriodUsage]
    shares: list[Share]  # of the group, dearest first
    names: dict[str, str]  # of the shares
    columns: list[str]
    cells: list[list[Any]]  # of the chart's table: the time, then a cell a series
    sample: latency.Sample
    streams: Sums
    others: Sums
    errors: latency.Errors
    changes: dict[str, Change]
    week: list[tuple[str, list[Cell]]]
    heat_days: int | None  # of how many days the hours are, when not of all

    @property
    def metric_name(self) -> str:
        return METRIC_NAMES[self.metric]

    @property
    def group_name(self) -> str:
        return GROUP_NAMES[self.group]

    @property
    def success(self) -> float | None:
        return success(self.sums)


class Line(NamedTuple):
    """One factor of a request's cost: `quantity` × `price_nano` for each `per` of its unit = `amount`."""

    what: str
    quantity: int
    unit: str
    price_nano: int
    per: int
    amount: str  # decimal, exact


# --- what an address asks for ----------------------------------------------------------------------------------------


def span_asked(args: Mapping[str, str], *, usual: str = "30", at_ms: int | None = None) -> Span | None:
    """The span that an address asks for, the usual one without a wish; None for days that are none.

    `range` is one of RANGES; `from` and `to` are days of UTC, the last one included.
    """
    now_ms = usage_reports.now_ms() if at_ms is None else at_ms
    choice = args.get("range", "")
    if choice == CUSTOM or choice not in RANGES and (args.get("from") or args.get("to")):
        return _custom(args, now_ms)
    choice = choice if choice in RANGES else usual
    length = int(choice) * DAY_MS
    if choice == "1":
        first = now_ms - now_ms % HOUR_MS - 23 * HOUR_MS
    else:
        first = now_ms - now_ms % DAY_MS - length + DAY_MS
    title = RANGES[choice][:1].lower() + RANGES[choice][1:]
    return Span(choice, title, first, now_ms + 1, first - length, now_ms + 1 - length)


def _custom(args: Mapping[str, str], now_ms: int) -> Span | None:
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
    return Span(CUSTOM, title, begun, end, begun - days * DAY_MS, end - days * DAY_MS, until)


def _named(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def reader_of(person: Person) -> Reader:
    """The person as a reader of the books: of their own usage, and of all usage of the teams that they own."""
    return TeamReader(person.id, person.sees_everything, () if person.sees_everything else owned_teams(person))


def asked(args: Mapping[str, str], span: Span, among: Sequence[Group]) -> tuple[Metric, Group, Step, str]:
    """What the chart measures, what it tells apart, its steps, and the zone of the hours; the usual for anything odd."""
    metric = next((metric for metric in METRICS if args.get("metric") == metric), METRICS[0])
    group = next((group for group in among if args.get("group") == group), OWN_GROUPS[0])
    step = next((step for step in steps(span) if args.get("by") == step), None)
    zone = args.get("tz", "UTC")
    return metric, group, step or _usual_step(span), zone if zone in periods.timezones() else "UTC"


def groups(everyone: bool, *, people: bool = False) -> tuple[Group, ...]:
    """What may be told apart: over everyone all of it, in a team that one owns its people too."""
    return ALL_GROUPS if everyone else TEAM_GROUPS if people else OWN_GROUPS


def steps(span: Span) -> list[Step]:
    """The steps of which not too many, and not too few, fit into the span."""
    length = span.to_ms - span.from_ms
    sizes: dict[Step, int] = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS, "month": 28 * DAY_MS}
    found = [step for step, size in sizes.items() if length / size <= MOST_BARS and (step == "hour" or length > size)]
    return found or ["hour"]


def _usual_step(span: Span) -> Step:
    possible = steps(span)
    if span.choice in USUAL_STEPS:
        return USUAL_STEPS[span.choice]
    days = (span.to_ms - span.from_ms) / DAY_MS
    wanted: Step = "hour" if days <= 2 else "day" if days <= 62 else "week"
    return wanted if wanted in possible else possible[-1]


def filters_asked(
    args: Mapping[str, str], reader: Reader, span: Span | None, *, everyone: bool, people: bool = False
) -> Filters:
    """What an address narrows usage to; who looks neither at everyone nor, with `people`, at all of a team that they
    own, is narrowed to themselves."""
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
        from_ms=span.from_ms if span else None,
        to_ms=span.until_ms if span else None,
    )


# --- what the page shows ---------------------------------------------------------------------------------------------


def overview(
    reader: Reader,
    span: Span,
    filters: Filters,
    *,
    metric: Metric,
    group: Group,
    step: Step,
    timezone: str,
    rankings: Rankings,
    names: Names,
) -> Overview:
    """The usage of `span` that `filters` let through; `rankings` know who used most of the group."""
    earlier = msgspec.structs.replace(filters, from_ms=span.before_ms, to_ms=span.before_to_ms)
    dimension = GROUPS[group]
    course = usage_reports.course(reader, step, filters=filters, before=earlier)
    shares = rankings.of(dearest(group, filters)).shares[:TOP]
    most = rankings.of(charted(group, filters, metric, step))
    largest = [share.name for share in most.shares if _measure(share, metric)]
    called = names.of(group, {share.name for share in shares} | set(largest))
    parts = most.series
    if parts is None:
        parts = usage_reports.shares_over_time(
            reader, step, dimension, largest, filters=filters, measures=MEASURED[metric]
        )
    columns, cells = _chart(course.rows, dimension, step, largest, parts, called, metric, span)
    single = latency.report(reader, filters, earlier)
    heat_from = max(span.from_ms, span.to_ms - span.to_ms % DAY_MS - (HEAT_DAYS - 1) * DAY_MS)
    week = usage_reports.by_hour_of_week(
        reader,
        filters=msgspec.structs.replace(filters, from_ms=heat_from),
        timezone=timezone,
        measures=MEASURED[metric],
    )
    sums = course.sums
    return Overview(
        span, metric, group, step, timezone, sums, course.before, course.rows, shares, called, columns, cells, single.sample,
        course.streams, course.whole, single.errors, _changes(sums, course.before, single.sample, single.before),
        _heat(week, metric),
        HEAT_DAYS if heat_from > span.from_ms else None,
    )  # fmt: skip


def shown(wanted: Mapping[Group, set[str]]) -> dict[tuple[Group, str], str]:
    """What models, keys, teams, people and providers are called, by group and id; models are called by their own
    names. What was removed is `GONE`, but for teams, whose names the audit log knows."""
    found: dict[tuple[Group, str], str] = {}
    pieces = []
    for group, ids in wanted.items():
        for id in ids:
            found[group, id] = NAMELESS[group] if not id else id if group == "model" else GONE
        if group in NAMED and (asked := ids - {""}):
            id_of, name_of = NAMED[group]
            pieces.append(select(literal(group), id_of, name_of).where(one_of(id_of, asked)))
    if pieces:
        found |= {(group, id): name for group, id, name in db.session.execute(union_all(*pieces))}
    if former := {id for id in wanted.get("team", ()) if found["team", id] == GONE}:
        found |= {("team", id): name for id, name in teams.former_names_of(former).items()}
    return found


def others(group: Group, filters: Filters) -> Question:
    """What a filter offers from: what was used in the span and with the other filters."""
    return dearest(group, msgspec.structs.replace(filters, **{GROUPS[group]: None}))


def offered(rankings: Rankings | None, group: Group, filters: Filters) -> set[str]:
    """The ids of what a filter offers."""
    chosen: str | None = getattr(filters, GROUPS[group])
    ids = {share.name for share in rankings.of(others(group, filters)).shares} - {""} if rankings else set()
    return ids | ({chosen} if chosen and chosen != NOBODY else set())


def choices(rankings: Rankings | None, names: Names, group: Group, filters: Filters) -> list[tuple[str, str]]:
    """What a filter offers by its name: what `others` found; without rankings only what is chosen.

    People are named by their usernames, everything else by its id. What is chosen is offered even when unused.
    """
    called = names.of(group, offered(rankings, group, filters))
    by_name = sorted((name.casefold(), name, id) for id, name in called.items() if name != GONE or group != "user")
    return [(name if group == "user" else id, name) for _, name, id in by_name]


def _chart(
    rows: list[PeriodUsage], dimension: Dimension, step: Step, charted: list[str], parts: dict[str, dict[int, Sums]],
    names: dict[str, str], metric: Metric, span: Span,
) -> tuple[list[str], list[list[Any]]]:  # fmt: skip
    rest = any(
        _measure(row, metric) - sum(_measure(parts[name].get(row.start_ms, Sums()), metric) for name in charted)
        for row in rows
    )
    cells = []
    for row in rows:
        numbers = [_measure(parts[name].get(row.start_ms, Sums()), metric) for name in charted]
        if rest or not charted:
            numbers.append(_measure(row, metric) - sum(numbers))
        cells.append([label(row.start, step, span), *(_cell(number, metric) for number in numbers)])
    columns = [step.capitalize(), *(names[name] for name in charted)]
    if rest or not charted:
        columns.append(f"Other {PLURALS[dimension]}" if charted else METRIC_NAMES[metric])
    return columns, cells


def label(start: datetime, step: Step, span: Span) -> str:
    """A group of the chart in a few letters."""
    match step:
        case "hour":
            return f"{start:%H:%M}" if span.choice == "1" else f"{start.day} {start:%b %H:%M}"
        case "day" | "week":
            return f"{start.day} {start:%b}"
        case "month":
            return f"{start:%b %Y}"


def _changes(sums: Sums, before: Sums, sample: latency.Sample, earlier: latency.Sample) -> dict[str, Change]:
    now, then = sample.all, earlier.all
    found = {
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
        found["success"] = Change(f"{points:+g} points" if points else "same", None if not points else points > 0)
    return {name: one for name, one in found.items() if one is not None}


def change(now: float | None, before: float | None, *, less_is_good: bool | None = None) -> Change | None:
    """How a figure changed, as a part of what it was; None without something to compare with."""
    if not before or before < 0 or now is None:
        return None
    part = (now - before) / before
    if abs(part) < 0.0005:
        return Change("same")
    text = f"×{now / before:,.0f}" if part >= 9.5 else f"{part * 100:+.{0 if abs(part) >= 0.1 else 1}f}%"
    slight = less_is_good is None or abs(part) < 0.02
    return Change(text, None if slight else (part < 0) == less_is_good)


def success(sums: Sums) -> float | None:
    """The part of requests that did not fail; what a client broke off did not fail."""
    return (sums.requests - sums.errors) / sums.requests if sums.requests else None


def tokens_per_s(sums: Sums) -> float | None:
    """Tokens that streams wrote by the seconds from their first token to their end."""
    writing_ms = sums.duration_ms - sums.ttft_ms
    return sums.completion_tokens / writing_ms * 1000 if sums.completion_tokens and writing_ms > 0 else None


def _heat(week: list[list[Sums]], metric: Metric) -> list[tuple[str, list[Cell]]]:
    numbers = [[_measure(sums, metric) for sums in day] for day in week]
    top = max(max(day) for day in numbers)
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    return [
        (day, [Cell(_short(number, metric), min(5, -(-number * 5 // top)) if number > 0 else 0) for number in row])
        for day, row in zip(days, numbers, strict=True)
    ]


def _short(number: int, metric: Metric) -> str:
    """A number that fits into a small cell: two or three letters."""
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
    """A line of the export: one group in one step of the span."""

    period: PeriodUsage
    share: Share
    name: str


def export_columns(group: Group) -> dict[str, Any]:
    """The columns of the export; money as decimal text."""
    named = {} if group == "model" else {f"{group}_id": lambda row: row.share.name or None}
    return {
        "period_start": lambda row: row.period.start,
        "period_end": lambda row: row.period.end,
        **named,
        group: lambda row: row.name,
        "requests": lambda row: row.share.requests,
        "errors": lambda row: row.share.errors,
        "cancelled": lambda row: row.share.cancelled,
        **{name: attrgetter(f"share.{name}") for name in NAMES},
        "cost": lambda row: money.text(row.share.cost_nano),
        "mean_duration_ms": lambda row: row.share.mean_duration_ms,
        "mean_ttft_ms": lambda row: row.share.mean_ttft_ms,
    }


def every_row(reader: Reader, filters: Filters, step: Step, group: Group) -> Iterator[Row]:
    """The sums as lines, step by step, oldest first; steps and groups without usage have none."""
    for period in usage_reports.stats(reader, step, filters=filters):
        if not (period.requests or period.cost_nano):
            continue
        within = msgspec.structs.replace(
            filters,
            from_ms=max(period.start_ms, filters.from_ms or 0),
            to_ms=min(period.end_ms, filters.to_ms or period.end_ms),
        )
        shares = usage_reports.by(reader, GROUPS[group], filters=within, limit=100_000)
        for start in range(0, len(shares), OFFERED):
            some = shares[start : start + OFFERED]
            names = shown({group: {share.name for share in some}})
            for share in some:
                yield Row(period, share, names[group, share.name])


# --- single requests -------------------------------------------------------------------------------------------------


def arithmetic(entry: UsageEntry, price: Price) -> list[Line]:
    """How an entry's cost follows from its price: the sum of the lines, rounded half up to a nano-unit once."""
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
