"""The pages about usage and about single requests, which two doors open: for a person's own, and for everyone's.

The reader is the permission, in the books themselves; a door only says how wide it looks and where its pages are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import msgspec
from flask import Response, abort, request
from sqlalchemy import select

from app.clock import from_ms, now
from app.domain import catalog, identity, keys, providers, teams
from app.domain.catalog import Deployment
from app.domain.person import Person
from app.extensions import db
from app.ledger.entries import UsageEntry
from app.metering import money
from app.metering.quantities import NAMES
from app.metering.scopes import team_and_person
from app.metering.usage import Refusal
from app.pages import usage as arranged
from app.reports import refused_requests, requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, Reader, ReportError
from app.web import exports, links
from app.web.render import current_address, render
from app.web.request_cache import abundant, memberships, role_in

SIZES = (20, 50, 100)
STATUSES = [
    ("ok", "Succeeded"), ("error", "Failed"), ("cancelled", "Cancelled"),
    ("400", "HTTP 400"), ("429", "HTTP 429"), ("502", "HTTP 502"), ("503", "HTTP 503"), ("504", "HTTP 504"),
]  # fmt: skip
OUTCOMES = ("ok", "error", "cancelled")
SPANNING = ("range", "from", "to")
NARROWING = ("model", "key", "team", "user", "provider")
TYPED = ("model", "user")  # which addresses call by the names that people know
TOPS: dict[arranged.Group, str] = {"user": "Top users", "team": "By team", "provider": "By provider"}  # for admins
LATE: tuple[arranged.Group, ...] = ("user", "team")
OF_REQUESTS = ("endpoint", "status", "code")  # what only single requests are narrowed by
CUT = 400  # letters of a message in a file


class Door(NamedTuple):
    """Where the pages of this door are, and whether they look at everyone."""

    everyone: bool
    usage: str
    activity: str
    people: bool = False  # whether it tells people apart, as for a team that one owns

    @property
    def groups(self) -> tuple[arranged.Group, ...]:
        return arranged.groups(self.everyone, people=self.people)

    def to(self, person: Person) -> Door:
        """The door as this request opens it: onto a team, if it asks for one that the person owns."""
        led = not self.everyone and role_in(person, request.args.get("team")) == "owner"
        return self._replace(people=True) if led else self


PORTAL = Door(False, "/usage", "/activity")
ADMIN = Door(True, "/admin/usage", "/admin/activity")


# --- sums ------------------------------------------------------------------------------------------------------------


def usage(person: Person, door: Door, page: str, fragment: str, **values: Any) -> Response:
    """The sums of a span, as a page or as a file."""
    door, reader = door.to(person), arranged.reader_of(person)
    span = arranged.span_asked(request.args)
    filters = arranged.filters_asked(request.args, reader, span, everyone=door.everyone, people=door.people)
    common = {"door": door, "clear": _clear(), "updated": now(), **values}
    if span is None:
        chips = _chips(door, arranged.Names())
        return render(page, fragment, overview=None, fields=_range_fields(span), keep={}, chips=chips, **common)
    metric, group, step, timezone = arranged.asked(request.args, span, door.groups)
    if form := exports.wanted():
        rows = arranged.every_row(reader, filters, step, group)
        return exports.answer(form, "usage", arranged.export_columns(group), rows)
    late = _is_told_on_demand(door, filters)
    offered = [one for one in _offers(door, filters) if not (late and one in LATE)]
    among = tuple(one for one in door.groups if one != "key" or one in offered)
    group = group if group in among else among[0]
    tops = {one: title for one, title in TOPS.items() if door.everyone and not (late and one in LATE)}
    active = (door.everyone or door.people) and not late
    ranked = dict.fromkeys((group, *tops, *(("user",) if active else ())))
    questions = [arranged.charted(group, filters, metric, step), *(arranged.dearest(one, filters) for one in ranked)]
    questions += [arranged.others(one, filters) for one in offered]
    rankings = arranged.Rankings(reader, questions)
    called = arranged.Names()
    choices = _choices(rankings, called, person, door, filters, offered)
    found = arranged.overview(
        reader, span, filters, metric=metric, group=group, step=step, timezone=timezone, rankings=rankings, names=called,
    )  # fmt: skip
    return render(
        page,
        fragment,
        overview=found,
        fields=_range_fields(span) + _narrowing_fields(choices, offered),
        keep=_kept("group", "by", "metric", "tz", "tops"),
        chart_fields=_chart_fields(found, among),
        chart_keep=_kept(*SPANNING, *NARROWING, "tz", "tops"),
        zone_fields=[_field("tz", "Time zone", _zones(timezone), timezone) | {"zones": True}],
        zone_keep=_kept(*SPANNING, *NARROWING, "group", "by", "metric", "tops"),
        activity_href=_address(door.activity, *SPANNING, *NARROWING),
        error_hrefs=[
            _address(door.activity, *SPANNING, *NARROWING, status=kind.status, code=kind.code)
            for kind in found.errors.kinds
        ],
        active=rankings.of(arranged.dearest("user", filters)).active if active else None,
        tops_href=current_address(tops=1) if late else None,
        tops=[_top(rankings, called, one, title, filters) for one, title in tops.items()],
        speeds=[arranged.tokens_per_s(found.streams), None],
        chips=_chips(door, called),
        **common,
    )


Field = dict[str, Any]  # a filter as the macro `toolbar` takes it


def _field(name: str, label: str, options: Sequence[tuple[str, str]], value: str | None, *, all: bool = False) -> Field:
    return {"name": name, "label": label, "options": options, "value": value, "required": not all}


def _range_fields(span: arranged.Span | None) -> list[Field]:
    """The choice of the span, with two dates when it is not one of the usual ones."""
    ranges = [*arranged.RANGES.items(), (arranged.CUSTOM, "Custom dates")]
    fields = [_field("range", "Range", ranges, span.choice if span else arranged.CUSTOM)]
    if span is None or span.choice == arranged.CUSTOM:
        first, last = (span.first_day, span.last_day) if span else (request.args.get("from"), request.args.get("to"))
        fields += [
            {"kind": "date", "name": "from", "label": "First day, UTC", "value": first},
            {"kind": "date", "name": "to", "label": "Last day, UTC", "value": last},
        ]
    return fields


def _narrowing_fields(choices: Mapping[str, list[tuple[str, str]]], offered: Collection[str]) -> list[Field]:
    """A filter for each thing of which there is a choice, or that is chosen; what there is too much of is typed, and
    only some of it offered, if any."""
    return [
        _field(name, name.capitalize(), options, request.args.get(name), all=True)
        | ({"kind": "text"} if _is_typed(name, options, offered) else {})
        for name, options in choices.items()
        if len(options) > (0 if name == "team" else 1) or request.args.get(name) or _is_typed(name, options, offered)
    ]


def _is_typed(name: str, options: Sequence[tuple[str, str]], offered: Collection[str]) -> bool:
    return name in TYPED and (len(options) >= arranged.OFFERED or name not in offered)


def _chart_fields(found: arranged.Overview, among: Sequence[arranged.Group]) -> list[Field]:
    metrics = [(metric, f"Chart: {name.lower()}") for metric, name in arranged.METRIC_NAMES.items()]
    steps = [(step, f"A bar {'an' if step == 'hour' else 'a'} {step}") for step in arranged.steps(found.span)]
    groups = [(group, f"By {arranged.GROUP_NAMES[group].lower()}") for group in among]
    return [
        _field("metric", "Chart shows", metrics, found.metric),
        _field("by", "Length of a bar", steps, found.step),
        _field("group", "Told apart by", groups, found.group),
    ]


def _zones(chosen: str) -> list[tuple[str, str]]:
    return [(zone, zone) for zone in dict.fromkeys(("UTC", chosen))]


def _kept(*names: str) -> dict[str, str]:
    """Parameters that another form of the page sends along."""
    return {name: value for name in names if (value := request.args.get(name))}


def _address(path: str, *names: str, **more: Any) -> str:
    asked = _kept(*names) | {name: str(value) for name, value in more.items() if value is not None}
    return f"{path}?{urlencode(asked)}" if asked else path


def _clear() -> str:
    return current_address(**dict.fromkeys((*NARROWING, *OF_REQUESTS, "q", "cursor")))


def _top(
    rankings: arranged.Rankings, names: arranged.Names, group: arranged.Group, title: str, filters: Filters
) -> tuple[arranged.Group, str, list[usage_reports.Share], dict[str, str]]:
    """Who used most, or of which providers, whatever the chart tells apart."""
    shares = rankings.of(arranged.dearest(group, filters)).shares[:10]
    return group, title, shares, names.of(group, {share.name for share in shares})


def _offers(door: Door, filters: Filters) -> list[arranged.Group]:
    """Of which filters choices are offered. Where there are more keys than can be, none are until a user or a team is
    chosen; of as many people or models, which are typed, none once one is chosen."""
    too_many: set[str] = set()
    if door.everyone:
        chosen = {"user": filters.person_id, "model": filters.model}
        too_many = {group for group in _abundant() if chosen.get(group)}
        if "key" in _abundant() and not (filters.person_id or filters.team_id):
            too_many.add("key")
    return [group for group in door.groups if group not in too_many]


def _abundant() -> set[str]:
    """What there is more of than a filter can offer."""
    return abundant(arranged.OFFERED)


def _is_told_on_demand(door: Door, filters: Filters) -> bool:
    """Whether who and which teams used most is left for another click: of a model or a provider that many people use
    everybody's use has to be added up."""
    wide = door.everyone and not (filters.person_id or filters.team_id or filters.key_id)
    narrow = filters.model or filters.provider_id
    return bool(wide and narrow and not request.args.get("tops") and "user" in _abundant())


def _choices(
    rankings: arranged.Rankings, names: arranged.Names, person: Person, door: Door, filters: Filters,
    offered: Collection[arranged.Group],
) -> dict[str, list[tuple[str, str]]]:  # fmt: skip
    """What each filter offers: what was used with the others in force, so that a user narrows the keys offered.

    One's own teams are offered whether or not one used them: their owners see what others did."""
    names.learn("user", {person.id: person.username})
    mine = {} if door.everyone else {one.team_id: one.team.name for one in memberships(person)}
    names.learn("team", mine)
    known = {group: rankings if group in offered else None for group in door.groups}
    names.look_up({group: arranged.offered(found, group, filters) for group, found in known.items()})
    found: dict[str, list[tuple[str, str]]] = {
        group: arranged.choices(known[group], names, group, filters) for group in door.groups
    }
    if door.everyone and "team" not in offered:
        found["team"] = [(team.id, team.name) for team in db.session.scalars(teams.all_())]
    if not door.everyone:
        found["team"] = sorted({**dict(found["team"]), **mine}.items(), key=lambda told: told[1].casefold())
    return found


def _offered(reader: Reader, names: arranged.Names, person: Person, door: Door, filters: Filters) -> list[Field]:
    """The filters of a list: they offer the same, but where there are more people than can be offered, what there is
    rather than what was used, as the books would have to be added up for a list of requests."""
    filters = msgspec.structs.replace(filters, status=None, error_code=None)
    if not door.everyone or filters.person_id or "user" not in _abundant():
        offered = _offers(door, filters)
        rankings = arranged.Rankings(reader, [arranged.others(group, filters) for group in offered])
        return _narrowing_fields(_choices(rankings, names, person, door, filters, offered), offered)
    there_is = {
        "model": [(name, name) for name in db.session.scalars(select(catalog.Model.name).order_by(catalog.Model.name))],
        "key": arranged.choices(None, names, "key", filters),
        "team": [(team.id, team.name) for team in db.session.scalars(teams.all_())],
        "user": [("", "")] * arranged.OFFERED,  # typed
        "provider": [(one.id, one.name) for one in db.session.scalars(providers.search())],
    }
    return _narrowing_fields({group: there_is[group] for group in door.groups}, door.groups)


def _chips(door: Door, names: arranged.Names, *more: str) -> list[dict[str, str]]:
    """The filters in force, by the words people know, each with the address without it."""
    texts: dict[str, tuple[str, str]] = {}
    for name in (*door.groups, *more):
        value = request.args.get(name)
        if not value:
            continue
        told = value
        if name in ("key", "team", "provider"):
            told = names.of(cast("arranged.Group", name), {value})[value]
        elif name == "status":
            told = dict(STATUSES).get(value, f"HTTP {value}")
        texts[name] = (name.capitalize() if name != "code" else "Error code", told)
    return [
        {"label": label, "value": told, "href": current_address(**{name: None}, cursor=None)}
        for name, (label, told) in texts.items()
    ]


# --- single requests -------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """What the ids in some requests are called now."""

    people: dict[str, str]
    keys: dict[str, str]
    providers: dict[str, str]
    deployments: dict[str, str]  # the upstream's own name for the model
    teams: dict[str, str]

    @classmethod
    def of(cls, entries: Sequence[UsageEntry], names: arranged.Names | None = None) -> Shown:
        """`names` are those that are known already."""
        names = names or arranged.Names()
        tried = {attempt["deployment_id"] for entry in entries for attempt in entry.attempts}
        deployments = {entry.deployment_id for entry in entries if entry.deployment_id} | tried
        ids = {entry.provider_id for entry in entries if entry.provider_id}
        ids |= {attempt["provider_id"] for entry in entries for attempt in entry.attempts}
        people = {entry.person_id for entry in entries}
        keys = {entry.key_id for entry in entries if entry.key_id}
        teams = {entry.team_id for entry in entries if entry.team_id}
        names.look_up({"user": people, "key": keys, "provider": ids, "team": teams})
        return cls(
            people=names.there_are("user", people),
            keys=names.there_are("key", keys),
            providers=names.there_are("provider", ids),
            deployments=_named(Deployment.id, Deployment.upstream_model, deployments) if deployments else {},
            teams=names.of("team", teams),
        )


def _named(id: Any, name: Any, ids: Iterable[str]) -> dict[str, str]:
    return dict(db.session.execute(select(id, name).where(id.in_(ids))).all())


def activity(person: Person, door: Door, page: str, fragment: str, **values: Any) -> Response:
    """The list of requests, as a page or as a file."""
    door, reader = door.to(person), arranged.reader_of(person)
    wanted_id = (request.args.get("q") or "").strip()
    span = arranged.span_asked(request.args)
    filters = arranged.filters_asked(request.args, reader, span, everyone=door.everyone, people=door.people)
    filters = _of_requests(filters)
    if (form := exports.wanted()) and (span or wanted_id):
        return exports.answer(form, "requests", EXPORT, _lines(reader, filters, wanted_id))
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    refusal = None
    if wanted_id:
        entries = requests.entries_of(reader, wanted_id)[:1]
        refusal = None if entries else refused_requests.find(person, wanted_id)
        found = requests.Page(entries=entries, next=None, total=len(entries))
    elif span is None:
        found = requests.Page(entries=[], next=None, total=0)
    else:
        try:
            found = requests.search(reader, filters=filters, limit=size, cursor=request.args.get("cursor"))
        except ReportError:
            abort(404, "This page of the list is no longer there.")
    called = arranged.Names()
    return render(
        page,
        fragment,
        door=door,
        span=span,
        q=wanted_id,
        refusal=refusal,
        found=found,
        size=size,
        sizes=SIZES,
        fields=[
            *_range_fields(span),
            _field("status", "Status", STATUSES, request.args.get("status"), all=True),
            *(_offered(reader, called, person, door, filters) if span else []),
            _field("endpoint", "Endpoint", _endpoints(), request.args.get("endpoint"), all=True) | {"more": True},
        ],
        named=Shown.of(found.entries, called),
        keep=_kept("code", "size"),
        usage_href=_address(door.usage, *SPANNING, *NARROWING),
        chips=_chips(door, called, *OF_REQUESTS),
        clear=_clear(),
        updated=now(),
        **values,
    )


def _of_requests(filters: Filters) -> Filters:
    """Also narrowed to what only single requests have."""
    status = request.args.get("status", "")
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else None
    return msgspec.structs.replace(
        filters,
        endpoint=request.args.get("endpoint") or None,
        status=status if status in OUTCOMES else number,
        error_code=request.args.get("code") or None,
    )


def _endpoints() -> list[tuple[str, str]]:
    paths = db.session.scalars(select(providers.Endpoint.path).order_by(providers.Endpoint.path))
    return [(path, path) for path in paths]


class Line(NamedTuple):
    """A request in a file, with what its ids are called."""

    entry: UsageEntry
    named: Shown


def _lines(reader: Reader, filters: Filters, wanted_id: str) -> Iterator[Line]:
    pieces: Iterable[list[UsageEntry]] = (
        [requests.entries_of(reader, wanted_id)[:1]] if wanted_id else requests.all_in_chunks(reader, filters=filters)
    )
    for entries in pieces:
        named = Shown.of(entries)
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
    "error_message": lambda line: (line.entry.error_message or "")[:CUT] or None,
    **{name: attrgetter(f"entry.{name}") for name in NAMES},
    "cost": lambda line: money.text(line.entry.cost_nano),
    "duration_ms": lambda line: line.entry.duration_ms,
    "ttft_ms": lambda line: line.entry.ttft_ms,
    "tokens_per_s": lambda line: speed(line.entry),
    "finish_reason": lambda line: line.entry.finish_reason,
    "stream": lambda line: line.entry.stream,
    "fallbacks": lambda line: fallbacks(line.entry),
}


def speed(entry: UsageEntry) -> float | None:
    """Tokens a second from the first one on, of a stream; None for anything else."""
    if not entry.stream or entry.ttft_ms is None or entry.duration_ms <= entry.ttft_ms or not entry.completion_tokens:
        return None
    return round(entry.completion_tokens * 1000 / (entry.duration_ms - entry.ttft_ms), 1)


def fallbacks(entry: UsageEntry) -> int:
    """How many deployments were tried in vain before the last one."""
    return max(0, len(entry.attempts) - 1)


# --- one request -----------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One try in the waterfall; `left` and `width` are hundredths of the whole request's time."""

    number: int
    provider: str
    upstream_model: str
    started_ms: int
    duration_ms: int
    error: str | None
    left: float
    width: float


class Charged(NamedTuple):
    """A counter that the request was charged to."""

    what: str
    name: str
    period: str


def one(person: Person, door: Door, id: str) -> Response:
    """What is known of a request; for a day also why one was not let in."""
    entries = requests.entries_of(arranged.reader_of(person), id)
    if not entries:
        if refusal := refused_requests.find(person, id):
            return _refused(person, door, refusal)
        abort(404, "There is no such request, or its record is still on its way: try again in a moment.")
    first = entries[0]
    named = Shown.of(entries)
    return render(
        "portal/activity/request.html",
        door=door,
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


def _waterfall(entry: UsageEntry, named: Shown) -> list[Bar]:
    """The tries, one after the other. Times are those of the tries; what lies between is not kept, and is small."""
    whole = max(entry.duration_ms, sum(attempt["duration_ms"] for attempt in entry.attempts), 1)
    bars, started = [], 0
    for number, attempt in enumerate(entry.attempts, 1):
        length = attempt["duration_ms"]
        bars.append(
            Bar(
                number,
                named.providers.get(attempt["provider_id"], arranged.GONE),
                named.deployments.get(attempt["deployment_id"], arranged.GONE),
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


def _charged(scope: Sequence[str], entry: UsageEntry, named: Shown) -> Charged:
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


def _curl(entry: UsageEntry) -> str:
    """The call as far as it is known: neither the key nor what was said is kept."""
    form = entry.endpoint in ("/v1/audio/transcriptions", "/v1/audio/translations")
    quoted = entry.model.replace("'", "'\\''")
    body = (
        f"  -F 'model={quoted}' -F file=@audio.wav"
        if form
        else '  -H "Content-Type: application/json" \\\n  --data @request.json'
    )
    return f'curl {links.origin()}{entry.endpoint} \\\n  -H "Authorization: Bearer $PORTICO_API_KEY" \\\n{body}'


def _sum(entry: UsageEntry) -> list[arranged.Line] | None:
    """How its cost came about; None when nothing was charged, as for failures, or the price is gone."""
    if not entry.cost_nano or entry.kind != "usage":
        return None
    price = catalog.price_of(entry.price_id) if entry.price_id else None
    return None if price is None else arranged.arithmetic(entry, price)


def _refused(person: Person, door: Door, refusal: Refusal) -> Response:
    """Why it was not let in, as the meter saw it then, and what to do about it."""
    return render(
        "portal/activity/refusal.html",
        door=door,
        linked=_portal_is_served(),
        refusal=refusal,
        at=from_ms(refusal.at_ms),
        resets_at=None if refusal.resets_ms is None else from_ms(refusal.resets_ms),
        frees_at=from_ms(refusal.at_ms + refusal.retry_ms) if refusal.retry_ms else None,
        key=db.session.get(keys.ApiKey, refusal.key_id) if refusal.key_id else None,
        person=identity.by_id(refusal.person_id),
        own=refusal.person_id == person.id,
    )


def _portal_is_served() -> bool:
    """Whether this process also has the portal's door, so that its pages can be linked to."""
    return links.is_served("portal.keys.detail")
