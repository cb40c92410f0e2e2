"""Usage over everyone, for admins: the person's own page with all people in it, and who and what used most."""

from __future__ import annotations

from flask import Blueprint, Response, abort, current_app, request

from app.blueprints.admin.person import me
from app.domain import budgets, identity, keys, providers
from app.extensions import db
from app.ledger import reports
from app.ledger.reports import Filters, ReportError
from app.web import usage as arranged
from app.web.render import render

LAST = 20  # requests a page
TOP = 10

bp = Blueprint("usage", __name__)


@bp.get("/admin/usage")
def index() -> Response:
    person = me()
    days, metric = arranged.asked(request.args)
    overview = arranged.overview(person, days=days, metric=metric)
    spanned = Filters(from_ms=overview.from_ms)
    try:
        page = reports.requests(person, filters=spanned, limit=LAST, cursor=request.args.get("cursor"))
    except ReportError:
        abort(404, "This page of the list is no longer there.")
    top_people = reports.top_users(person, filters=spanned, limit=TOP)
    people = {share.name for share in top_people} | {entry.person_id for entry in page.entries}
    return render(
        "admin/usage/index.html",
        "admin/usage/_usage.html",
        overview=overview,
        last=page,
        top_people=top_people,
        top_providers=reports.by(person, "provider_id", filters=spanned, limit=TOP),
        people=identity.names_of(people),
        providers={provider.id: provider.name for provider in db.session.scalars(providers.listed())},
        key_names=keys.names_of(entry.key_id for entry in page.entries if entry.key_id),
        linked="portal.one_request" in current_app.view_functions,  # that door may be closed here
        organisation=budgets.standing("organisation", "default"),
    )
