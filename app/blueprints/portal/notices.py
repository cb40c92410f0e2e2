"""Notices: what a person was told, read and unread, and whether they want it by e-mail too."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for

from app.blueprints.portal.person import me
from app.domain import deliveries, notices
from app.extensions import transaction
from app.pages.badges import badges
from app.web.lists import page_of
from app.web.render import render, see_other, toast_next
from app.web.sign_in import safe_next

bp = Blueprint("notices", __name__)


@bp.get("/notices")
def index() -> Response:
    person = me()
    unread_only = request.args.get("show") == "unread"
    return render(
        "portal/notices/index.html",
        "portal/notices/_list.html",
        listing=page_of(notices.addressed_to(person, unread=unread_only)),
        unread_only=unread_only,
        unread_count=badges(person).unread,
        mails=deliveries.mails(),
        by_email=person.email_notices,
        address=person.email,
    )


@bp.post("/notices/<id>/reading")
def read(id: str) -> Response:
    """Marks one as read and goes on to what it tells of, if that was asked for."""
    person = me()
    found = notices.get_visible(person, id)
    transaction(notices.mark_read, found)
    if request.form.get("go") and found.href:
        return see_other(safe_next(found.href))
    return see_other(_list())


@bp.post("/notices/reading")
def read_all() -> Response:
    transaction(notices.mark_all_read, me())
    toast_next("success", "All notices are marked as read.")
    return see_other(url_for("portal.notices.index"))


@bp.post("/notices/email")
def choose() -> Response:
    wanted = request.form.get("email") == "y"
    transaction(notices.choose, me(), email=wanted)
    toast_next("success", "Notices come by e-mail too." if wanted else "Notices come here only.")
    return see_other(url_for("portal.notices.index"))


def _list() -> str:
    """The list as it was left."""
    home = url_for("portal.notices.index")
    wanted = safe_next(request.form.get("back"))
    return wanted if wanted.partition("?")[0] == home else home
