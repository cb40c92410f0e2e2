"""The first page after signing in: what is left to do before the first call, and how things stand."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, Response

from app.blueprints.portal.person import me
from app.blueprints.portal.snippets import base_url
from app.domain import budgets, keys, offering, subscriptions
from app.extensions import db
from app.ledger import reports
from app.ledger.reports import Filters
from app.web.render import render

DAYS = 7
EXPIRES_SOON = timedelta(days=7)
RECENT = 4  # models that are shown


def open_on(door: Blueprint) -> None:
    door.get("/home")(home)


def home() -> Response:
    person = me()
    own = Filters(person_id=person.id)
    [month] = reports.usage(person, "month", periods=1, filters=own)
    week = reports.usage(person, "day", periods=DAYS, filters=own)
    subscribed = list(db.session.scalars(subscriptions.of(person, status="active")))
    active_keys = list(db.session.scalars(keys.listed(person, status="active")))
    called = bool(month.requests) or bool(reports.requests(person, filters=own, limit=1).entries)
    newest = offering.newest(RECENT)
    return render(
        "portal/home/index.html",
        name=person.username,
        month=month,
        week=week,
        budget=budgets.standing("user", person.id),
        subscribed=subscribed,
        active_keys=active_keys,
        called=called,
        pending=list(db.session.scalars(subscriptions.of(person, status="pending"))),
        expiring=list(db.session.scalars(keys.expiring(person, within=EXPIRES_SOON))),
        newest=newest,
        latest=offering.access(person, [item.id for item in newest]),
        is_new=offering.is_new,
        waiting=subscriptions.waiting_count() if person.sees_everything else None,
        system=reports.summary(person) if person.sees_everything else None,
        base_url=base_url(),
    )
