"""Plans queries of usage in any period: for which reader, with which filters, from which rollups and entries.

The reader is the permission: they see their own usage, that of teams that they own, or all if they see everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple, Protocol, cast
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Table,
    case,
    false,
    func,
    literal,
    null,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy import cast as cast_sql

from app import clock
from app.extensions import db
from app.ledger.entries import ENTRY, FAILED, REFUSED, TAGGED
from app.ledger.measures import DAY_MS, DIMENSIONS, HOUR_MS, KINDS, MEASURES, Kind, entry_measures
from app.ledger.rollups import HOURLY, ROLLUP, derived_before, period_start
from app.ledger.summaries import CUT, FOUND_BY, HOURLY_CUTS, OF_TEAMS, fitting, rows_of
from app.metering.periods import FOR_EVER_MS, window_of
from app.metering.quantities import Quantities


class Reader(Protocol):
    """Who reads: `app.domain.identity.Person` is one."""

    @property
    def id(self) -> Any: ...

    @property
    def sees_everything(self) -> bool: ...


class TeamReader(NamedTuple):
    """A person who reads their own usage and all usage of `teams`, which they own."""

    id: str
    sees_everything: bool
    teams: tuple[str, ...]


class Everybody(NamedTuple):
    """A reader of all usage, for figures that name no person."""

    id: str = ""
    sees_everything: bool = True


EVERYBODY = Everybody()


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a report; None means all. The span is [from_ms, to_ms) in Unix ms.

    `status` is an HTTP status, or "ok", "error", "cancelled", "refused". Filters by `status`, `error_code` or what clients say of
    themselves (`LABELS`, `turn_id`) read single entries.
    """

    person_id: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    model: str | None = None
    provider_id: str | None = None
    endpoint: str | None = None
    api_type: str | None = None
    status: int | str | None = None
    error_code: str | None = None
    session_id: str | None = None
    agent: str | None = None
    tag: str | None = None
    turn_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def needs_entries(self) -> bool:
        """Whether only single entries can be filtered so: rollups don't hold it."""
        return any(getattr(self, name) is not None for name in OF_ENTRIES)


# What clients say of their calls. Rollups don't hold it, as there are too many sessions; an entry can have several tags.
LABELS = ("session_id", "agent", "tag")
OF_ENTRIES = ("status", "error_code", *LABELS, "turn_id")
NONE = Filters()
NARROWING = ("person_id", "key_id", "team_id", "model", "provider_id", "endpoint", "api_type")

# Late corrections, repairs and credits are entries of the ledger but not requests.
IS_REQUEST = ENTRY.c.kind == "usage"
IS_LISTED = ENTRY.c.kind.in_(("usage", "refusal"))  # refused calls are listed beside requests, and counted apart


class Sums(Quantities, kw_only=True, gc=False):
    """Sums of usage: counts of requests and tokens, money in nano-units, times in ms."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    cost_nano: int = 0
    overdraft_nano: int = 0
    duration_ms: int = 0
    ttft_ms: int = 0
    ttft_count: int = 0
    refused: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def mean_duration_ms(self) -> float | None:
        """The mean duration of a request in ms; None without requests."""
        return self.duration_ms / self.requests if self.requests else None

    @property
    def mean_ttft_ms(self) -> float | None:
        """The mean time to first token in ms; None if no request had one."""
        return self.ttft_ms / self.ttft_count if self.ttft_count else None

    def add(self, other: Sums) -> None:
        for name in MEASURES:
            if more := getattr(other, name):
                setattr(self, name, getattr(self, name) + more)


class _Source(NamedTuple):
    """Where sums of one length are read: a table, the kind of longer rollups, and the cut; `sought` says that the cut's rows
    are found by model or person."""

    table: Table
    kind: Kind | None = None
    cut: str | None = None
    sought: bool = False

    @property
    def own(self) -> list[Any]:
        if self.cut is not None:
            return [text(f"kind = '{self.kind or 'hour'}'"), *rows_of(self.cut, sought=self.sought)]
        return [self.table.c.kind == self.kind] if self.kind else []

    @property
    def length_ms(self) -> int | None:
        """The length of a row's time in ms; None for entries and for months, which differ."""
        if self.kind is None:
            return None if self.table is ENTRY else HOUR_MS
        return {"day": DAY_MS, "week": 7 * DAY_MS}.get(self.kind)

    @property
    def moment(self) -> ColumnElement[int]:
        return cast("ColumnElement[int]", self.table.c.at_ms if self.table is ENTRY else self.table.c.start_ms)


_ENTRIES, _HOURS = _Source(ENTRY), _Source(HOURLY)
# Estimates: a group that was used on one day is often used on others.
_ROWS_A_DAY: dict[Kind | None, float] = {None: 1.5, "day": 1.0, "week": 0.3, "month": 0.15}
_ENTRY_MEASURES = entry_measures(ENTRY)
_horizons: WeakKeyDictionary[Any, int | None] = WeakKeyDictionary()  # by transaction


def span_of(filters: Filters) -> tuple[int, int]:
    return filters.from_ms or 0, FOR_EVER_MS if filters.to_ms is None else filters.to_ms


def used_in(
    reader: Reader,
    filters: Filters,
    first: int,
    after: int,
    edges: Sequence[int] = (),
    *,
    of: Collection[str],
    among: tuple[str, Sequence[str]] | None = None,
    measures: Collection[str] = MEASURES,
) -> Any:
    """A query of the usage in [first, after), in Unix ms: the dimensions `of`, the `measures` and, if `edges` holds the starts
    of windows, the window.

    To read few rows, it uses the longest rollups that fit between the edges and are up to date, with shorter ones around
    them, and summaries where `of` and the filters allow it. `among` narrows a dimension to some names.
    """
    sources = [_ENTRIES]
    inner = edges if len(edges) > 1 else ()  # a single window has no edges inside the span
    whole = not filters.needs_entries and not any(name in LABELS for name in (*of, *(among[:1] if among else ())))
    if whole and all(edge % HOUR_MS == 0 for edge in inner):
        cut = cut_for(reader, filters, [*of, *([among[0]] if among else [])])
        table = CUT if cut else ROLLUP
        sought = _seeks(reader, filters, among)
        sources.append(_Source(CUT, None, cut, sought) if cut in HOURLY_CUTS else _HOURS)
        if all(edge % DAY_MS == 0 for edge in inner):
            sources.append(_Source(table, "day", cut, sought))
            for kind in KINDS[1:]:
                if {period_start(kind, edge) for edge in inner} == set(inner):
                    sources.append(_Source(table, kind, cut, sought))
    fresh = _fresh() if len(sources) > 2 else None
    dimensions = [name for name in (*DIMENSIONS, *LABELS) if name in of or (among is not None and name == among[0])]
    pieces = [
        _piece(reader, filters, source, start, end, edges, dimensions, measures).where(
            *([_dimension(source.table, among[0]).in_(among[1])] if among else [])
        )
        for source, start, end in _parts(sources, first, after, fresh)
    ]
    return union_all(*pieces) if len(pieces) > 1 else pieces[0]


def hours_in(
    reader: Reader, filters: Filters, first: int, after: int, measures: Collection[str] = MEASURES
) -> Select[Any]:
    """A query of the usage by hour, from the hour of `first` and before `after`: start and measures.

    Where no cut has hours it reads entries, which the indexes of the filters hold in order of time.
    """
    cut = None if filters.needs_entries else cut_for(reader, filters, ())
    source = _Source(CUT, None, cut) if cut in HOURLY_CUTS else _ENTRIES
    columns = _ENTRY_MEASURES if source is _ENTRIES else source.table.c
    return select(
        (source.moment - source.moment % HOUR_MS).label("start_ms"), *(columns[name].label(name) for name in measures)
    ).where(
        source.moment >= first - first % HOUR_MS,
        source.moment < after,
        *source.own,
        *conditions(reader, filters, source.table),
    )


def cut_for(reader: Reader, filters: Filters, of: Collection[str]) -> str | None:
    """The coarsest cut with all dimensions that are read or filtered; None if only the rollups of all groups have them."""
    narrow = {name for name in NARROWING if getattr(filters, name) is not None}
    if not reader.sees_everything and not _leads(reader, filters) and filters.person_id != reader.id:
        narrow.add("person_id")
        if isinstance(reader, TeamReader) and reader.teams:
            narrow.add("team_id")
    return fitting({*of, *narrow})


def _seeks(reader: Reader, filters: Filters, among: tuple[str, Sequence[str]] | None) -> bool:
    """Whether the report is of certain models or people, rather than of everything in a span."""
    named = any(getattr(filters, name) is not None for name in FOUND_BY) or (among is not None and among[0] in FOUND_BY)
    return named or not (reader.sees_everything or _leads(reader, filters))


def _fresh() -> int | None:
    """The first hour, in Unix ms, that the longer rollups lack; None if they are up to date.

    It is read once in a transaction, so that all parts of a page agree.
    """
    connection = db.session.connection()
    transaction = db.session().get_transaction()
    if transaction not in _horizons:
        _horizons[transaction] = derived_before(connection)
    return _horizons[transaction]


def _parts(sources: Sequence[_Source], first: int, after: int, fresh: int | None) -> list[tuple[_Source, int, int]]:
    """Split [first, after) into parts, each read from one source: with or without weeks and months, whichever reads fewer
    rows."""
    longer = [source for source in sources if source.kind not in (None, "day")]
    others = [source for source in sources if source not in longer]
    ways = [_split([*others, *some], first, after, fresh) for size in range(3) for some in combinations(longer, size)]
    return min(ways, key=_weight)


def _weight(parts: Sequence[tuple[_Source, int, int]]) -> float:
    """An estimate of how many rows parts read, in arbitrary units."""
    end = clock.now_ms()
    return sum(max(0, min(after, end) - first) * _ROWS_A_DAY[source.kind] for source, first, after in parts)


def _split(sources: Sequence[_Source], first: int, after: int, fresh: int | None) -> list[tuple[_Source, int, int]]:
    """Split [first, after) into parts, each read from the coarsest source that fits; `fresh` is the first underived hour."""
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
        return at_ms  # the end of time ends every period
    return period_start(source.kind, at_ms) if source.kind else at_ms - at_ms % HOUR_MS


def _ceiling(source: _Source, at_ms: int) -> int:
    if at_ms == 0 or at_ms >= FOR_EVER_MS:
        return at_ms  # as its start starts every period
    if source.kind is None:
        return -(-at_ms // HOUR_MS) * HOUR_MS
    start = period_start(source.kind, at_ms)
    return start if start == at_ms else window_of(f"{source.kind}|UTC", at_ms).end_ms


def _piece(
    reader: Reader,
    filters: Filters,
    source: _Source,
    start: int,
    end: int,
    edges: Sequence[int],
    dimensions: Sequence[str],
    measures: Collection[str],
) -> Select[Any]:
    table = source.table
    columns = _ENTRY_MEASURES if table is ENTRY else table.c
    window = _window(source, edges, end) if edges else null()
    rows = ENTRY.outerjoin(TAGGED, TAGGED.c.entry_id == ENTRY.c.id) if "tag" in dimensions else table
    return (
        select(
            window.label("window"),
            *(_dimension(table, name).label(name) for name in dimensions),
            *(columns[name].label(name) for name in measures),
        )
        .select_from(rows)
        .where(
            source.moment >= start,
            source.moment < end,
            *source.own,
            *conditions(reader, filters, table),
        )
    )


def _dimension(table: Table, name: str) -> ColumnElement[Any]:
    """A dimension as a column. It is null in an entry where it is empty text in the rollups."""
    column: ColumnElement[Any] = TAGGED.c.tag if name == "tag" else table.c[name]
    return func.coalesce(column, "") if table is ENTRY and (name == "tag" or column.nullable) else column


def _window(source: _Source, edges: Sequence[int], end: int) -> ColumnElement[int]:
    """The start of the window that contains a row of `source` before `end`.

    If rows are as long as windows it is the row's own start, which an index has in order; if windows are equally long it is
    computed; else it is searched.
    """
    if len(edges) == 1:
        return literal(edges[0])
    moment, step = source.moment, edges[1] - edges[0]
    if end <= edges[-1] + step and all(later - earlier == step for earlier, later in pairwise(edges)):
        if step == source.length_ms and edges[0] == _floor(source, edges[0]):
            return moment
        return moment - (moment - literal(edges[0])) % literal(step)
    return _found(moment, edges)


def _found(moment: ColumnElement[int], edges: Sequence[int]) -> ColumnElement[int]:
    """The window of a moment by a balanced tree of comparisons, as windows can be many."""
    if len(edges) == 1:
        return literal(edges[0])
    middle = len(edges) // 2
    return case(
        (moment < literal(edges[middle]), _found(moment, edges[:middle])),
        else_=_found(moment, edges[middle:]),
    )


def conditions(reader: Reader, filters: Filters, table: Table) -> list[Any]:
    """Conditions for the rows that the reader can see and that match the filters. A team's owner sees all of the team."""
    own = [] if _leads(reader, filters) else access_conditions(reader, table, of_key=filters.key_id is not None)
    return [*own, *filter_conditions(filters, table)]


def _leads(reader: Reader, filters: Filters) -> bool:
    return isinstance(reader, TeamReader) and filters.team_id in reader.teams


def access_conditions(reader: Reader, table: Table, *, of_key: bool = False) -> list[ColumnElement[bool]]:
    """Conditions for the rows that the reader can see; `of_key` says that a filter narrows them to a key too.

    A key has fewer rows than its person, so its index is the better one: the condition on the person is then written in a
    way that no index answers.
    """
    if reader.sees_everything:
        return []
    if not reader.id:
        return [false()]
    own: ColumnElement[bool] = (func.coalesce(table.c.person_id, "") if of_key else table.c.person_id) == reader.id
    if not isinstance(reader, TeamReader) or not reader.teams:
        return [own]
    return [or_(own, (func.coalesce(table.c.team_id, "") if of_key else table.c.team_id).in_(reader.teams))]


def filter_conditions(filters: Filters, table: Table) -> list[Any]:
    where: list[Any] = [table.c[name] == value for name in NARROWING if (value := getattr(filters, name)) is not None]
    if table is CUT and filters.team_id:
        where.append(OF_TEAMS)
    if filters.status is not None:  # entries only, see `used_in`
        column = ENTRY.c.status if isinstance(filters.status, int) else ENTRY.c.outcome
        indexed: dict[int | str, Any] = {"error": FAILED, "refused": REFUSED}
        where.append(indexed.get(filters.status, column == filters.status))
    if filters.error_code is not None:
        where.append(ENTRY.c.error_code == filters.error_code)
    if filters.tag is not None:
        where.append(ENTRY.c.id.in_(select(TAGGED.c.entry_id).where(TAGGED.c.tag == filters.tag)))
    for name in ("session_id", "agent", "turn_id"):
        if (value := getattr(filters, name)) is not None:
            where.append(ENTRY.c[name] == value)
    return where


def something(sums: Iterable[Any], *, refused: bool = False) -> ColumnElement[bool]:
    """Whether a group has any usage, or if wanted `refused` calls, by its sums. Repairs are entries without usage."""
    named = {column.name: column for column in sums}
    shown = ("requests", "cost_nano", "prompt_tokens", "completion_tokens", *(["refused"] if refused else []))
    return or_(*(named[name] != 0 for name in shown))


def summed(used: Any, measures: Collection[str] = MEASURES) -> list[Any]:
    return [added(used.c[name]).label(name) for name in measures]


def added(column: Any) -> ColumnElement[int]:
    """The sum of a column as an integer: PostgreSQL's sums are decimals, which are slow to read."""
    return cast_sql(func.sum(column), BigInteger)


def sums_of(found: Row[Any], measures: Collection[str] = MEASURES) -> Sums:
    """The sums in the last columns of a row. A sum over no rows is null in SQL and 0 here."""
    return Sums(**{name: number or 0 for name, number in zip(measures, found[-len(measures) :], strict=True)})
