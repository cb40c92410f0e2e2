"""The pages of usage and of single requests, which two doors serve: for a person's own, and for everyone's.

The reader is the permission, in the ledger queries themselves. A door only says how much it shows and where its pages
are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import msgspec
from flask import Response, abort, request
from sqlalchemy import select

from app import clock
from app.clock import from_ms, now
from app.domain import catalog, keys, prices, providers, saved_views, teams
from app.domain.catalog import Deployment
from app.domain.person import Person
from app.extensions import db
from app.ledger.entries import UsageEntry
from app.metering import money
from app.metering.quantities import NAMES, QUANTITIES
from app.metering.scopes import team_and_person
from app.metering.usage import Refusal
from app.pages import usage as usage_pages
from app.reports import refused_requests, requests
from app.reports import usage as usage_reports
from app.reports.planner import OF_ENTRIES
from app.reports.usage import Filters, Reader, ReportError, Step
from app.runtime.ids import moment_of
from app.web import exports, links
from app.web.render import current_address, render
from app.web.request_cache import memberships, more_than, role_in

SIZES = (20, 50, 100)
STATUSES = [
    ("ok", "Succeeded"), ("error", "Failed"), ("cancelled", "Cancelled"), ("refused", "Refused"),
    *((status, f"HTTP {status}") for status in ("400", "401", "403", "404", "429", "502", "503", "504")),
]  # fmt: skip
OUTCOMES = ("ok", "error", "cancelled", "refused")
PERIOD_PARAMETERS = ("range", "from", "to")
GROUP_PARAMETERS = ("model", "key", "team", "user", "provider", *usage_pages.LABELS)
USAGE_PARAMETERS = (*GROUP_PARAMETERS, "status")  # filters of sums
TYPED = ("model", "user")  # filters by a name that people know, so they can type it
STEP_NAMES: dict[Step, str] = {"hour": "Hourly", "day": "Daily", "week": "Weekly", "month": "Monthly"}
TOPS: dict[usage_pages.Group, str] = {"user": "Top users", "team": "By team", "provider": "By provider"}  # for admins
ON_DEMAND: tuple[usage_pages.Group, ...] = ("user", "team")
REQUEST_PARAMETERS = ("endpoint", "status", "code", "turn")  # filters of single requests only
VIEW_PARAMETERS = (*PERIOD_PARAMETERS, *GROUP_PARAMETERS, *REQUEST_PARAMETERS, "size")  # what a saved view keeps
LIVE_S = 5  # how often a live list reloads
CHIP_NAMES = {"code": "Error code", "turn": "Turn"}
LONGEST_MESSAGE = 400  # characters of an error message in an export
ARRIVES_MS = 90_000  # within which the ledger has a request, or the count of its minute, unless something is wrong
ON_ITS_WAY = "There is no such request, or its record is still on its way: try again in a moment."
UNKNOWN = (
    "There is no request with this id that you can see. A request that was answered with 401 has no record: its key was"
    " missing, unknown, paused, revoked or replaced, so it belongs to no account. Your API keys and their status are on the page"
    " API keys."
)


class Door(NamedTuple):
    """Where the pages of a door are, and whether they show everyone's usage."""

    everyone: bool
    usage: str
    activity: str
    people: bool = False  # whether usage can be grouped by people, as for a team that the reader owns

    @property
    def groups(self) -> tuple[usage_pages.Group, ...]:
        return usage_pages.groups(self.everyone, people=self.people)

    def to(self, person: Person) -> Door:
        """Returns the door for this request: with `people`, if the request filters by a team that the person owns."""
        is_owner = not self.everyone and role_in(person, request.args.get("team")) == "owner"
        return self._replace(people=True) if is_owner else self


PORTAL = Door(False, "/usage", "/activity")
ADMIN = Door(True, "/admin/usage", "/admin/activity")


# --- sums ------------------------------------------------------------------------------------------------------------


def usage(person: Person, door: Door, page: str, fragment: str, **values: Any) -> Response:
    """Answers with the usage of a period, as a page or as a file."""
    door, reader = door.to(person), usage_pages.reader_of(person)
    period = usage_pages.period_from(request.args)
    filters = usage_pages.filters_from(request.args, reader, period, everyone=door.everyone, people=door.people)
    filters = msgspec.structs.replace(filters, status=_status())
    common = {"door": door, "clear": _clear(), "updated": now(), **values}
    if period is None:
        chips = _chips(door, usage_pages.Names(), "status")
        return render(page, fragment, overview=None, fields=_range_fields(period), keep={}, chips=chips, **common)
    groups = (*door.groups, *usage_pages.LABELS)
    metric, group, step, timezone = usage_pages.chart_from(request.args, period, groups, person.timezone)
    if file_format := exports.requested_format():
        usage_pages.record_export(person, "usage", file_format, request.args)
        rows = usage_pages.every_row(reader, filters, step, group)
        return exports.answer(file_format, "usage", usage_pages.export_columns(group), rows)
    on_demand = _is_on_demand(door, filters)
    offered = [group_name for group_name in _offers(door, filters) if not (on_demand and group_name in ON_DEMAND)]
    among = tuple(group_name for group_name in door.groups if group_name != "key" or group_name in offered)
    among += usage_pages.LABELS
    group = group if group in among else among[0]
    tops = {
        group_name: title
        for group_name, title in TOPS.items()
        if door.everyone and not (on_demand and group_name in ON_DEMAND)
    }
    active = (door.everyone or door.people) and not on_demand
    ranked = dict.fromkeys((group, *tops, *(("user",) if active else ())))
    questions = [
        usage_pages.charted(group, filters, metric, step),
        *(usage_pages.dearest(group_name, filters) for group_name in ranked),
    ]
    questions += [usage_pages.others(group_name, filters) for group_name in offered]
    rankings = usage_pages.Rankings(reader, questions)
    names = usage_pages.Names()
    choices = _choices(rankings, names, person, door, filters, offered)
    overview = usage_pages.overview(
        reader, period, filters, metric=metric, group=group, step=step, timezone=timezone, rankings=rankings, names=names,
    )  # fmt: skip
    return render(
        page,
        fragment,
        overview=overview,
        fields=[*_range_fields(period), _status_field(), *_group_fields(choices, offered), *_label_fields()],
        keep=_parameters("group", "by", "metric", "tz", "tops"),
        chart_fields=_chart_fields(overview, among),
        chart_keep=_parameters(*PERIOD_PARAMETERS, *USAGE_PARAMETERS, "tz", "tops"),
        zone_fields=[_field("tz", "Time zone", _zones(person.timezone, timezone), timezone) | {"zones": True}],
        zone_keep=_parameters(*PERIOD_PARAMETERS, *USAGE_PARAMETERS, "group", "by", "metric", "tops"),
        activity_href=_address(door.activity, *PERIOD_PARAMETERS, *USAGE_PARAMETERS),
        request_hrefs={
            group_name: _request_hrefs(
                door, names, group_name, rankings.of(usage_pages.dearest(group_name, filters)).shares
            )
            for group_name in dict.fromkeys((group, *tops))
        },
        error_hrefs=[
            _address(door.activity, *PERIOD_PARAMETERS, *GROUP_PARAMETERS, status=kind.status, code=kind.code)
            for kind in overview.errors.kinds
        ],
        refused_href=_address(door.activity, *PERIOD_PARAMETERS, *GROUP_PARAMETERS, status="refused"),
        refused_hrefs=[
            _address(door.activity, *PERIOD_PARAMETERS, *GROUP_PARAMETERS, status=kind.status, code=kind.code)
            for kind in overview.refused.kinds
        ],
        share_hrefs={share.name: current_address(**{group: share.name}) for share in overview.shares if share.name}
        if group in usage_pages.LABELS
        else None,
        active=rankings.of(usage_pages.dearest("user", filters)).active if active else None,
        tops_href=current_address(tops=1) if on_demand else None,
        tops=[_top(rankings, names, group_name, title, filters) for group_name, title in tops.items()],
        chips=_chips(door, names, "status"),
        **common,
    )


Field = dict[str, Any]  # a filter, as the macro `toolbar` takes it


def _field(name: str, label: str, options: Sequence[tuple[str, str]], value: str | None, *, all: bool = False) -> Field:
    return {"name": name, "label": label, "options": options, "value": value, "required": not all}


def _range_fields(period: usage_pages.Period | None) -> list[Field]:
    """The choice of the period, with two dates if it is not one of the usual ones."""
    ranges = [*usage_pages.RANGES.items(), (usage_pages.CUSTOM, "Custom dates")]
    fields = [_field("range", "Range", ranges, period.choice if period else usage_pages.CUSTOM)]
    if period is None or period.choice == usage_pages.CUSTOM:
        first, last = (
            (period.first_day, period.last_day) if period else (request.args.get("from"), request.args.get("to"))
        )
        fields += [
            {"kind": "date", "name": "from", "label": "First day, UTC", "value": first},
            {"kind": "date", "name": "to", "label": "Last day, UTC", "value": last},
        ]
    return fields


def _group_fields(choices: Mapping[str, list[tuple[str, str]]], offered: Collection[str]) -> list[Field]:
    """A filter for each group that has a choice, or that is in use. Where there are too many values to list, people
    type one, and the filter offers some values or none."""
    return [
        _field(name, name.capitalize(), options, request.args.get(name), all=True)
        | ({"kind": "text"} if _is_typed(name, options, offered) else {})
        for name, options in choices.items()
        if len(options) > (0 if name == "team" else 1) or request.args.get(name) or _is_typed(name, options, offered)
    ]


def _label_fields() -> list[Field]:
    """A filter for each thing that clients say of their calls, to be typed."""
    return [
        _field(name, usage_pages.GROUP_NAMES[name], (), request.args.get(name), all=True)
        | {"kind": "text", "more": True}
        for name in usage_pages.LABELS
    ]


def _is_typed(name: str, options: Sequence[tuple[str, str]], offered: Collection[str]) -> bool:
    return name in TYPED and (len(options) >= usage_pages.OFFERED or name not in offered)


def _chart_fields(overview: usage_pages.Overview, among: Sequence[usage_pages.Group]) -> list[Field]:
    metrics = [(metric, f"Chart: {name.lower()}") for metric, name in usage_pages.METRIC_NAMES.items()]
    steps = [(step, STEP_NAMES[step]) for step in usage_pages.steps(overview.period)]
    groups = [(group, f"By {usage_pages.GROUP_NAMES[group].lower()}") for group in among]
    return [
        _field("metric", "Chart shows", metrics, overview.metric),
        _field("by", "Interval", steps, overview.step),
        _field("group", "Group by", groups, overview.group),
    ]


def _status_field() -> Field:
    return _field("status", "Status", STATUSES, request.args.get("status"), all=True)


def _status() -> int | str | None:
    """The status that the URL filters by: an outcome, or an HTTP status."""
    status = request.args.get("status", "")
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else None
    return status if status in OUTCOMES else number


def _request_hrefs(
    door: Door, names: usage_pages.Names, group: usage_pages.Group, shares: Sequence[usage_reports.Share]
) -> dict[str, str]:
    """Where the requests of each share are listed, by its id. Usage without a name has no filter, nor has who is gone."""
    name_of = names.of(group, {share.name for share in shares})
    return {
        id: _address(door.activity, *PERIOD_PARAMETERS, *USAGE_PARAMETERS, **{group: name if group == "user" else id})
        for id, name in name_of.items()
        if id and not (group == "user" and names.is_gone(group, id))
    }


def _zones(*zones: str) -> list[tuple[str, str]]:
    return [(zone, zone) for zone in dict.fromkeys(("UTC", *zones))]


def _parameters(*names: str) -> dict[str, str]:
    """The values of these parameters in the URL, for another form of the page to send along."""
    return {name: value for name in names if (value := request.args.get(name))}


def _address(path: str, *names: str, **more: Any) -> str:
    parameters = _parameters(*names) | {name: str(value) for name, value in more.items() if value is not None}
    return f"{path}?{urlencode(parameters)}" if parameters else path


def _clear() -> str:
    return current_address(**dict.fromkeys((*GROUP_PARAMETERS, *REQUEST_PARAMETERS, "q", "cursor")))


def _top(
    rankings: usage_pages.Rankings, names: usage_pages.Names, group: usage_pages.Group, title: str, filters: Filters
) -> tuple[usage_pages.Group, str, list[usage_reports.Share], dict[str, str]]:
    """The largest users, teams or providers, whatever the chart is grouped by."""
    shares = rankings.of(usage_pages.dearest(group, filters)).shares[:10]
    return group, title, shares, names.of(group, {share.name for share in shares})


def _offers(door: Door, filters: Filters) -> list[usage_pages.Group]:
    """Which filters offer choices. If there are more keys than a filter can offer, it offers none until a user or a
    team is chosen. People and models are typed if there are too many, so once one is chosen their filter offers
    none."""
    without_choices: set[str] = set()
    if door.everyone:
        chosen = {"user": filters.person_id, "model": filters.model}
        without_choices = {group for group in _too_many() if chosen.get(group)}
        if "key" in _too_many() and not (filters.person_id or filters.team_id):
            without_choices.add("key")
    return [group for group in door.groups if group not in without_choices]


def _too_many() -> set[str]:
    """Of what there is more than a filter can offer."""
    return more_than(usage_pages.OFFERED)


def _is_on_demand(door: Door, filters: Filters) -> bool:
    """Whether the top users and teams are only shown after another click. If many people use a model or a provider, the
    database must add up the usage of all of them."""
    wide = door.everyone and not (filters.person_id or filters.team_id or filters.key_id)
    narrow = filters.model or filters.provider_id
    return bool(wide and narrow and not request.args.get("tops") and "user" in _too_many())


def _choices(
    rankings: usage_pages.Rankings, names: usage_pages.Names, person: Person, door: Door, filters: Filters,
    offered: Collection[usage_pages.Group],
) -> dict[str, list[tuple[str, str]]]:  # fmt: skip
    """What each filter offers: what was used under the other filters, so that choosing a user shortens the list of
    keys.

    A person's own teams are always offered, because their owners see what other members did.
    """
    names.learn("user", {person.id: person.username})
    own_teams = (
        {} if door.everyone else {membership.team_id: membership.team.name for membership in memberships(person)}
    )
    names.learn("team", own_teams)
    known = {group: rankings if group in offered else None for group in door.groups}
    names.look_up({group: usage_pages.offered(known[group], group, filters) for group in door.groups})
    choices: dict[str, list[tuple[str, str]]] = {
        group: usage_pages.choices(known[group], names, group, filters) for group in door.groups
    }
    if door.everyone and "team" not in offered:
        choices["team"] = [(team.id, team.name) for team in db.session.scalars(teams.all_())]
    if not door.everyone:
        choices["team"] = sorted(
            {**dict(choices["team"]), **own_teams}.items(), key=lambda choice: choice[1].casefold()
        )
    return choices


def _request_filters(
    reader: Reader, names: usage_pages.Names, person: Person, door: Door, filters: Filters
) -> list[Field]:
    """The filters of the list of requests: they offer what was used. If there are more people than a filter can
    offer, they offer everything that exists instead, because adding up all usage would be too much for this list."""
    filters = msgspec.structs.replace(filters, **dict.fromkeys(OF_ENTRIES))
    if not door.everyone or filters.person_id or "user" not in _too_many():
        offered = _offers(door, filters)
        rankings = usage_pages.Rankings(reader, [usage_pages.others(group, filters) for group in offered])
        return _group_fields(_choices(rankings, names, person, door, filters, offered), offered)
    existing = {
        "model": [(name, name) for name in db.session.scalars(select(catalog.Model.name).order_by(catalog.Model.name))],
        "key": usage_pages.choices(None, names, "key", filters),
        "team": [(team.id, team.name) for team in db.session.scalars(teams.all_())],
        "user": [("", "")] * usage_pages.OFFERED,  # typed
        "provider": [(one.id, one.name) for one in db.session.scalars(providers.search())],
    }
    return _group_fields({group: existing[group] for group in door.groups}, door.groups)


def _chips(door: Door, names: usage_pages.Names, *more: str) -> list[dict[str, str]]:
    """The filters in force, in words that people know, each with the URL without it."""
    texts: dict[str, tuple[str, str]] = {}
    for name in (*door.groups, *usage_pages.LABELS, *more):
        value = request.args.get(name)
        if not value:
            continue
        text = value
        if name in ("key", "team", "provider"):
            text = names.of(cast("usage_pages.Group", name), {value})[value]
        elif name == "status":
            text = dict(STATUSES).get(value, f"HTTP {value}")
        texts[name] = (CHIP_NAMES.get(name, name.capitalize()), text)
    return [
        {"label": label, "value": text, "href": current_address(**{name: None}, cursor=None)}
        for name, (label, text) in texts.items()
    ]


# --- single requests -------------------------------------------------------------------------------------------------


class RequestNames(NamedTuple):
    """The names of what some requests refer to, by id; of what was removed, those that it had last."""

    people: dict[str, str]
    keys: dict[str, str]
    providers: dict[str, str]
    deployments: dict[str, str]  # the upstream's own name for the model
    teams: dict[str, str]

    @classmethod
    def of(cls, entries: Sequence[UsageEntry], names: usage_pages.Names | None = None) -> RequestNames:
        """Reads the names for `entries`. `names` are names that are known already."""
        names = names or usage_pages.Names()
        tried = {attempt["deployment_id"] for entry in entries for attempt in entry.attempts}
        deployments = {entry.deployment_id for entry in entries if entry.deployment_id} | tried
        ids = {entry.provider_id for entry in entries if entry.provider_id}
        ids |= {attempt["provider_id"] for entry in entries for attempt in entry.attempts}
        people = {entry.person_id for entry in entries}
        keys = {entry.key_id for entry in entries if entry.key_id}
        teams = {entry.team_id for entry in entries if entry.team_id}
        names.look_up({"user": people, "key": keys, "provider": ids, "team": teams})
        return cls(
            people=names.known("user", people),
            keys=names.known("key", keys),
            providers=names.known("provider", ids),
            deployments=_names_by_id(Deployment.id, Deployment.upstream_model, deployments) if deployments else {},
            teams=names.of("team", teams),
        )


def _names_by_id(id: Any, name: Any, ids: Iterable[str]) -> dict[str, str]:
    return dict(db.session.execute(select(id, name).where(id.in_(ids))).all())


def activity(person: Person, door: Door, page: str, fragment: str, **values: Any) -> Response:
    """Answers with the list of requests, as a page or as a file."""
    door, reader = door.to(person), usage_pages.reader_of(person)
    request_id = (request.args.get("q") or "").strip()
    period = usage_pages.period_from(request.args)
    filters = usage_pages.filters_from(request.args, reader, period, everyone=door.everyone, people=door.people)
    filters = _with_request_filters(filters)
    if (file_format := exports.requested_format()) and (period or request_id):
        usage_pages.record_export(person, "requests", file_format, request.args)
        return exports.answer(file_format, "requests", EXPORT, _lines(reader, filters, request_id))
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    counts = []
    if request_id:
        entries = requests.entries_of(reader, request_id)[:1]
        counts = [] if entries else refused_requests.counted_about(reader, request_id)
        listing = requests.Page(entries=entries, next=None, total=len(entries))
    elif period is None:
        listing = requests.Page(entries=[], next=None, total=0)
    else:
        try:
            listing = requests.search(reader, filters=filters, limit=size, cursor=request.args.get("cursor"))
        except ReportError:
            abort(404, "This page of the list no longer exists.")
    names = usage_pages.Names()
    rows = [Turn(entry, []) for entry in listing.entries] if filters.turn_id else folded(listing.entries)
    return render(
        page,
        fragment,
        door=door,
        period=period,
        rows=rows,
        q=request_id,
        counts=counts,
        listing=listing,
        size=size,
        sizes=SIZES,
        fields=[
            *_range_fields(period),
            _status_field(),
            *(_request_filters(reader, names, person, door, filters) if period else []),
            _field("endpoint", "Endpoint", _endpoints(), request.args.get("endpoint"), all=True) | {"more": True},
            *_label_fields(),
        ],
        named=RequestNames.of(listing.entries, names),
        keep=_parameters("code", "size", "turn", "live"),
        live_s=LIVE_S if period and "live" in request.args and not (request_id or request.args.get("cursor")) else None,
        live_href=current_address(live=None if "live" in request.args else 1, cursor=None),
        query=view_query(request.args),
        **_views(person, door),
        usage_href=_address(door.usage, *PERIOD_PARAMETERS, *USAGE_PARAMETERS),
        chips=_chips(door, names, *REQUEST_PARAMETERS),
        clear=_clear(),
        updated=now(),
        **values,
    )


def view_query(args: Mapping[str, str]) -> str:
    """The part of an address of the list of requests that a saved view keeps: the filters, without the place in the list."""
    return urlencode({name: value for name in VIEW_PARAMETERS if (value := args.get(name))})


def _views(person: Person, door: Door) -> dict[str, Any]:
    """The person's saved views of this list, and where another is saved; none where the portal is not served."""
    save_href = links.url_if_served("portal.views.save")
    views = db.session.scalars(saved_views.owned_by(person, door.activity)).all() if save_href else []
    return {"views": views, "save_href": save_href}


class Turn(NamedTuple):
    """The newest request of a turn on a page, and the earlier ones on it that asked the same: its client repeated it."""

    entry: UsageEntry
    earlier: list[UsageEntry]

    @property
    def cost_nano(self) -> int:
        """What all of them cost."""
        return self.entry.cost_nano + sum(one.cost_nano for one in self.earlier)


def folded(entries: Iterable[UsageEntry]) -> list[Turn]:
    """Entries, newest first, with the requests of one turn in one row."""
    found: dict[tuple[str, str], Turn] = {}
    for entry in entries:
        name = (entry.person_id, entry.turn_id) if entry.turn_id else ("", entry.request_id)
        if name in found:
            found[name].earlier.append(entry)
        else:
            found[name] = Turn(entry, [])
    return list(found.values())


def _with_request_filters(filters: Filters) -> Filters:
    """Adds the filters that only single requests have."""
    return msgspec.structs.replace(
        filters,
        endpoint=request.args.get("endpoint") or None,
        status=_status(),
        error_code=request.args.get("code") or None,
        turn_id=request.args.get("turn") or None,
    )


def _endpoints() -> list[tuple[str, str]]:
    paths = db.session.scalars(select(providers.Endpoint.path).order_by(providers.Endpoint.path))
    return [(path, path) for path in paths]


class Line(NamedTuple):
    """One request in an export, with the names of what it refers to."""

    entry: UsageEntry
    named: RequestNames


def _lines(reader: Reader, filters: Filters, request_id: str) -> Iterator[Line]:
    batches: Iterable[list[UsageEntry]] = (
        [requests.entries_of(reader, request_id)[:1]] if request_id else requests.all_in_chunks(reader, filters=filters)
    )
    for entries in batches:
        named = RequestNames.of(entries)
        for entry in entries:
            yield Line(entry, named)


EXPORT: dict[str, Any] = {
    "id": lambda line: line.entry.request_id,
    "at": lambda line: line.entry.at,
    "user": lambda line: line.named.people.get(line.entry.person_id),
    "key_id": lambda line: line.entry.key_id,
    "key": lambda line: line.named.keys.get(line.entry.key_id or ""),
    "team_id": lambda line: line.entry.team_id,
    "team": lambda line: line.named.teams.get(line.entry.team_id or ""),
    "model": lambda line: line.entry.model,
    "upstream_model": lambda line: line.named.deployments.get(line.entry.deployment_id or ""),
    "provider": lambda line: line.named.providers.get(line.entry.provider_id or ""),
    "endpoint": lambda line: line.entry.endpoint,
    "outcome": lambda line: line.entry.outcome,
    "status": lambda line: line.entry.status,
    "error_code": lambda line: line.entry.error_code,
    "calls": lambda line: line.entry.refused or 1,  # refused ones beyond a minute's first are in one line
    "error_message": lambda line: (line.entry.error_message or "")[:LONGEST_MESSAGE] or None,
    **{name: attrgetter(f"entry.{name}") for name in NAMES},
    "cost": lambda line: money.text(line.entry.cost_nano),
    "duration_ms": lambda line: line.entry.duration_ms,
    "ttft_ms": lambda line: line.entry.ttft_ms,
    "tokens_per_s": lambda line: speed(line.entry),
    "finish_reason": lambda line: line.entry.finish_reason,
    "stream": lambda line: line.entry.stream,
    "session_id": lambda line: line.entry.session_id,
    "agent": lambda line: line.entry.agent,
    "subagent_id": lambda line: line.entry.subagent_id,
    "turn_id": lambda line: line.entry.turn_id,
    "tags": lambda line: line.entry.tags,
    "fallbacks": lambda line: fallbacks(line.entry),
}


def speed(entry: UsageEntry) -> float | None:
    """Returns the tokens per second of a stream after its first token; None for anything else."""
    if not entry.stream or entry.ttft_ms is None or entry.duration_ms <= entry.ttft_ms or not entry.completion_tokens:
        return None
    return round(entry.completion_tokens * 1000 / (entry.duration_ms - entry.ttft_ms), 1)


def fallbacks(entry: UsageEntry) -> int:
    """Returns how many deployments failed before the last one was tried."""
    return max(0, len(entry.attempts) - 1)


# --- one request -----------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One attempt in the waterfall. `left` and `width` are percentages of the whole request's time."""

    number: int
    provider: str
    upstream_model: str
    started_ms: int
    duration_ms: int
    error: str | None
    left: float
    width: float


class Charged(NamedTuple):
    """A budget that the request was charged to."""

    what: str
    name: str
    period: str


def one(person: Person, door: Door, id: str) -> Response:
    """Answers with what is known of one request: why it was refused, if it was."""
    reader = usage_pages.reader_of(person)
    entries = requests.entries_of(reader, id)
    if not entries:
        if counts := refused_requests.counted_about(reader, id):
            return _one_of_many(door, id, counts)
        abort(404, ON_ITS_WAY if clock.now_ms() - (moment_of(id) or 0) < ARRIVES_MS else UNKNOWN)
    first = entries[0]
    if first.kind == "refusal":
        return _refused(person, door, first)
    turn = requests.turn_of(reader, first)
    named = RequestNames.of(entries)
    return render(
        "portal/activity/request.html",
        door=door,
        turn=turn,
        turn_nano=sum(entry.cost_nano for entry in turn),
        unpriced=_unpriced(first),
        linked=_portal_is_served(),
        entries=entries,
        first=first,
        sums=[_sum(entry) for entry in entries],
        named=named,
        bars=_waterfall(first, named),
        charged=[_charged(scope, first, named) for scope in first.scopes],
        speed=speed(first),
        curl=_curl(first),
        own=first.person_id == person.id,
    )


def _unpriced(entry: UsageEntry) -> str | None:
    """What the request used for which its price has no member, such as "3 web_search_requests"; None for nothing."""
    titles = {quantity.name: quantity.title.lower() for quantity in QUANTITIES}
    return ", ".join(f"{count:,} {titles.get(name, name)}" for name, count in entry.unpriced.items()) or None


def _waterfall(entry: UsageEntry, named: RequestNames) -> list[Bar]:
    """The attempts, one after the other. The time between attempts is not recorded, and is small."""
    whole = max(entry.duration_ms, sum(attempt["duration_ms"] for attempt in entry.attempts), 1)
    bars, started = [], 0
    for number, attempt in enumerate(entry.attempts, 1):
        length = attempt["duration_ms"]
        bars.append(
            Bar(
                number,
                named.providers.get(attempt["provider_id"], usage_pages.GONE),
                named.deployments.get(attempt["deployment_id"], usage_pages.GONE),
                started,
                length,
                attempt.get("error"),
                round(started / whole * 100, 2),
                max(round(length / whole * 100, 2), 0.5),
            )
        )
        started += length
    return bars


KINDS = {
    "key": "Key", "subscription": "Subscription", "user": "Person", "member": "Share of a team", "team": "Team",
    "organisation": "Organisation",
}  # fmt: skip
PERIODS = {"day": "of that day", "week": "of that week", "month": "of that month", "total": "in total"}


def _charged(scope: Sequence[str], entry: UsageEntry, named: RequestNames) -> Charged:
    kind, id, period = scope
    name = {
        "key": named.keys.get(id, id),
        "user": named.people.get(id, id),
        "subscription": entry.model,
        "organisation": "everyone",
        "team": named.teams.get(id, id),
        "member": named.people.get(str(team_and_person(kind, id)[1]), id),
    }.get(kind, id)
    return Charged(KINDS.get(kind, kind), name, PERIODS.get(period.partition("-")[0], period))


# The file of a request that is a form, by path.
FILES = {
    "/v1/audio/transcriptions": "file=@audio.wav",
    "/v1/audio/translations": "file=@audio.wav",
    "/v1/images/edits": "image=@image.png",
    "/v1/images/variations": "image=@image.png",
}


def _curl(entry: UsageEntry) -> str:
    """The call as far as it is known: neither the key nor the prompt is stored."""
    file = FILES.get(entry.endpoint)
    quoted = entry.model.replace("'", "'\\''")
    body = (
        f"  -F 'model={quoted}' -F {file}"
        if file is not None
        else '  -H "Content-Type: application/json" \\\n  --data @request.json'
    )
    return f'curl {links.origin()}{entry.endpoint} \\\n  -H "Authorization: Bearer $PORTICO_API_KEY" \\\n{body}'


def _sum(entry: UsageEntry) -> list[usage_pages.Line] | None:
    """How the cost of a request was computed; None if nothing was charged, as for failures, or if the price was
    deleted."""
    if not entry.cost_nano or entry.kind != "usage":
        return None
    price = prices.by_id(entry.price_id) if entry.price_id else None
    return None if price is None else usage_pages.arithmetic(entry, price)


def _refused(person: Person, door: Door, entry: UsageEntry) -> Response:
    """Why a call, or the calls that an entry stands for, was refused: by the limits at that moment, and what to do about it."""
    refusal = msgspec.convert(entry.refusal, Refusal)
    return render(
        "portal/activity/refusal.html",
        door=door,
        linked=_portal_is_served(),
        entry=entry,
        refusal=refusal,
        asked=entry.model or refusal.asked,
        resets_at=None if refusal.resets_ms is None else from_ms(refusal.resets_ms),
        retry_at=from_ms(entry.at_ms + refusal.retry_ms) if refusal.retry_ms else None,
        key=db.session.get(keys.ApiKey, entry.key_id) if entry.key_id else None,
        named=RequestNames.of([entry]),
        own=entry.person_id == person.id,
    )


def _one_of_many(door: Door, id: str, counts: Sequence[UsageEntry]) -> Response:
    """Answers for the id of a call that can be one of those refused in its minute that are only counted."""
    return render(
        "portal/activity/counted.html", door=door, id=id, counts=counts, named=RequestNames.of(counts), at=counts[0].at,
    )  # fmt: skip


def _portal_is_served() -> bool:
    """Whether this process also serves the portal, so that its pages can be linked."""
    return links.is_served("portal.keys.detail")
