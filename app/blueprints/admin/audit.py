"""The audit log: who did what to which object, when and from where, with the values before and after."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, abort, request

from app.blueprints.admin.person import me
from app.clock import from_ms, now, to_ms
from app.domain import audit, audit_chain
from app.extensions import transaction
from app.pages.audit import lines
from app.pages.history import ACTION_TITLES, KINDS, differences, facts_of, reason_of
from app.pages.usage import Group, look_up_names
from app.reports import anomalies
from app.runtime.logs import masked
from app.web import cursors, exports
from app.web.lists import SIZES, all_rows, filters_from_request
from app.web.render import current_address, render

EXPORT_COLUMNS = {
    "id": lambda one: one.id,
    "at": lambda one: one.at,
    "actor": lambda one: one.actor,
    "on_behalf_of": lambda one: one.on_behalf_of,
    "action": lambda one: one.action,
    "object_kind": lambda one: one.object_kind,
    "object_id": lambda one: one.object_id,
    "object_name": lambda one: one.object_name,
    "address": lambda one: one.address,
    "detail": lambda one: masked(one.detail),
}
TITLES = {  # of actions, without the person that some name
    action: title.replace("{person}", "a person").replace("{role}", "an owner or a member")
    for action, title in ACTION_TITLES.items()
}
FILTERS = {
    "actor": "Actor",
    "action": "Action",
    "kind": "Object",
    "object": "Object’s name or id",
    "address": "Address",
    "from": "From",
    "to": "To",
}

bp = Blueprint("audit", __name__)


@bp.get("/admin/audit")
def index() -> Response:
    asked = filters_from_request(longest=200, **dict.fromkeys(FILTERS))
    chosen = {name: asked[name].strip() for name in FILTERS}
    first, last = _day(chosen["from"]), _day(chosen["to"])
    query = audit.entries(
        actor=chosen["actor"],
        action=chosen["action"],
        kind=chosen["kind"],
        about=chosen["object"],
        address=chosen["address"],
        since=first,
        until=last + timedelta(days=1) if last else None,
        search=asked.search,
    )
    used = {name: value for name, value in {**chosen, "search": asked.search}.items() if value}
    if file_format := exports.requested_format():
        facts = {"format": file_format, **used}
        transaction(audit.record, me(), "audit.export", "audit", "audit", facts=facts)
        return exports.answer(file_format, "audit", EXPORT_COLUMNS, all_rows(query))
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    try:
        listing = cursors.page_of(query, 1, size, request.args.get("cursor") or None)
    except cursors.InvalidCursor:
        abort(404, "This page of the list no longer exists.")
    return render(
        "admin/audit/index.html",
        "admin/audit/_list.html",
        listing=listing,
        lines=lines(listing.items),
        size=size,
        sizes=SIZES,
        search=asked.search,
        fields=_fields(chosen),
        chips=[_chip(name, value) for name, value in used.items()],
        invalid_days=[FILTERS[name] for name in ("from", "to") if chosen[name] and _day(chosen[name]) is None],
    )


@bp.get("/admin/audit/verification")
def verification() -> Response:
    """Checks the whole log while somebody waits: about 50,000 entries a second."""
    return render("admin/audit/verification.html", verification=audit_chain.verify())


@bp.get("/admin/audit/digest")
def digest() -> Response:
    """What one week's entries come to, beside the week before, and the days with unusual usage."""
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    monday = _day(request.args.get("week", "")) or today
    monday = min(monday, today)
    monday -= timedelta(days=monday.weekday())
    week, after = timedelta(days=7), monday + timedelta(days=7)
    counted, before = audit.counts(monday, after), audit.counts(monday - week, monday)
    found = anomalies.find(me(), to_ms(monday), 7)
    payers: list[tuple[Group, str]] = [
        ("team", one.team_id) if one.team_id else ("user", one.person_id) for one in found
    ]
    name_of = look_up_names({kind: {id for group, id in payers if group == kind} for kind in ("team", "user")})
    days = {"from": f"{monday:%Y-%m-%d}", "to": f"{after - timedelta(days=1):%Y-%m-%d}"}
    return render(
        "admin/audit/digest.html",
        rows=[
            (TITLES.get(action, action), action, counted.get(action, 0), before.get(action, 0))
            for action in sorted(counted.keys() | before.keys(), key=lambda one: TITLES.get(one, one))
        ],
        anomalies=[
            (one, from_ms(one.start_ms), name_of[payer], payer[0]) for one, payer in zip(found, payers, strict=True)
        ],
        days=days,
        earlier=f"{monday - week:%Y-%m-%d}",
        later=f"{after:%Y-%m-%d}" if after <= today else None,
    )


@bp.get("/admin/audit/<id>")
def detail(id: str) -> Response:
    entry = audit.entry(id)
    (line,) = lines([entry])
    return render(
        "admin/audit/detail.html",
        line=line,
        differences=differences(entry),
        facts=facts_of(entry),
        reason=reason_of(entry),
    )


def _day(text: str) -> datetime | None:
    """The beginning of a UTC day. None if the text is no day that a list can have."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if 1971 <= day.year <= 9000 else None


def _fields(chosen: dict[str, str]) -> list[dict[str, Any]]:
    """The filters of the toolbar."""
    choices = {"action": sorted(TITLES.items(), key=lambda one: one[1]), "kind": sorted(KINDS.items(), key=_title)}
    found = []
    for name, label in FILTERS.items():
        field: dict[str, Any] = {"name": name, "label": label, "value": chosen[name]}
        if name in choices:
            field |= {"options": choices[name]}
            if chosen[name] and chosen[name] not in dict(choices[name]):  # such as `key.*`
                field["options"] = [*choices[name], (chosen[name], chosen[name])]
        else:
            field |= {"kind": "date" if name in ("from", "to") else "text"}
        found.append(field | {"more": name in ("object", "address", "from", "to")})
    return found


def _title(choice: tuple[str, str]) -> str:
    return choice[1]


def _chip(name: str, value: str) -> dict[str, str]:
    shown = {"action": TITLES, "kind": KINDS}.get(name, {}).get(value, value)
    parameter = "q" if name == "search" else name
    return {
        "label": FILTERS.get(name, "Search"),
        "value": shown,
        "href": current_address(**{parameter: None}, cursor=None),
    }
