"""What one has used: by day and model, against one's budgets, and each request with the sum behind its cost."""

from __future__ import annotations

from flask import Blueprint, Response, abort, request

from app.blueprints.portal.person import me
from app.domain import budgets, catalog, identity, keys, providers, refusals, subscriptions
from app.domain.identity import Person
from app.extensions import db
from app.ledger import reports
from app.ledger.posting import UsageEntry
from app.ledger.reports import Filters, ReportError
from app.metering.usage import Refusal
from app.web import usage as arranged
from app.web.render import render

LAST = 20  # requests a page


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/usage", "usage", index)
    door.get("/requests/<id>")(one_request)


def index() -> Response:
    person = me()
    days, metric = arranged.asked(request.args)
    own = Filters(person_id=person.id)
    overview = arranged.overview(person, days=days, metric=metric, filters=own)
    try:
        page = reports.requests(
            person,
            filters=arranged.since(own, overview.from_ms),
            limit=LAST,
            cursor=request.args.get("cursor"),
        )
    except ReportError:
        abort(404, "This page of the list is no longer there.")
    return render(
        "portal/usage/index.html",
        "portal/usage/_usage.html",
        overview=overview,
        last=page,
        budgets=_budgets(person),
        key_names=keys.names_of(entry.key_id for entry in page.entries if entry.key_id),
        has_key=bool(db.session.scalar(keys.listed(person, status="active").limit(1))),
    )


def one_request(id: str) -> Response:
    entries = reports.request(me(), id)
    if not entries and (refusal := refusals.find(me(), id)):
        return _refused(refusal)
    if not entries:
        abort(404, "There is no such request, or its record is still on its way: try again in a moment.")
    return render(
        "portal/usage/request.html",
        entries=entries,
        sums=[_sum(entry) for entry in entries],
        key_names=keys.names_of(entry.key_id for entry in entries if entry.key_id),
        people=identity.names_of(entry.person_id for entry in entries),
        providers={provider.id: provider.name for provider in db.session.scalars(providers.listed())},
        own=entries[0].person_id == me().id,
    )


def _refused(refusal: Refusal) -> Response:
    """Why it was not let in, as the meter saw it then, and what to do about it."""
    key = db.session.get(keys.ApiKey, refusal.key_id) if refusal.key_id else None
    person = identity.by_id(refusal.person_id)
    return render(
        "portal/usage/refusal.html",
        refusal=refusal,
        at=arranged.moment(refusal.at_ms),
        resets_at=None if refusal.resets_ms is None else arranged.moment(refusal.resets_ms),
        frees_at=arranged.moment(refusal.at_ms + refusal.retry_ms) if refusal.retry_ms else None,
        key=key,
        person=person,
        own=refusal.person_id == me().id,
    )


def _sum(entry: UsageEntry) -> list[arranged.Line] | None:
    """How its cost came about; None when nothing was charged, as for failures, or the price is gone."""
    if not entry.cost_nano:
        return None
    price = catalog.price_of(entry.price_id) if entry.price_id else None
    return None if price is None else arranged.arithmetic(entry, price)


def _budgets(person: Person) -> list[tuple[str, budgets.Standing]]:
    """Everything that bounds this person's own spending, with its name: one's own budget first, even without limit."""
    scopes = [("user", person.id, "All your spending")]
    scopes += [
        ("subscription", one.id, f"Model {one.model_name}")
        for one in db.session.scalars(subscriptions.of(person, status="active"))
    ]
    scopes += [("key", key.id, f"Key {key.name}") for key in db.session.scalars(keys.listed(person, status="active"))]
    standings = budgets.standings([(kind, id) for kind, id, _ in scopes])
    return [
        (name, standing)
        for (kind, _, name), standing in zip(scopes, standings, strict=True)
        if kind == "user" or standing.limit_nano is not None
    ]
