"""Notifications: read and unread, and whether the person also wants them by e-mail."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for

from app.blueprints.portal.person import me
from app.domain import deliveries, notices
from app.extensions import transaction
from app.pages.badges import badges
from app.pages.selection import MOST
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
    """Marks one as read, and opens the page it is about if the form asks for that."""
    person = me()
    notice = notices.get_visible(person, id)
    transaction(notices.mark_read, notice)
    if request.form.get("go") and notice.href:
        return see_other(safe_next(notice.href))
    return see_other(_list())


@bp.post("/notices/reading")
def read_all() -> Response:
    transaction(notices.mark_all_read, me())
    toast_next("success", "All notifications are marked as read.")
    return see_other(url_for("portal.notices.index"))


@bp.post("/notices/selection")
def read_selected() -> Response:
    """Marks the chosen ones as read; what is not there any more is left out."""
    count = transaction(notices.mark_selected_read, me(), request.form.getlist("ids")[:MOST])
    if count:
        toast_next("success", f"{count} {'notification is' if count == 1 else 'notifications are'} marked as read.")
    else:
        toast_next("info", "No unread notification is selected.")
    return see_other(_list())


@bp.post("/notices/email")
def choose() -> Response:
    by_email = request.form.get("email") == "y"
    transaction(notices.choose, me(), email=by_email)
    toast_next(
        "success", "Notifications also come by e-mail." if by_email else "Notifications appear in the portal only."
    )
    back = request.form.get("back")
    return see_other(safe_next(back) if back else url_for("portal.notices.index"))


def _list() -> str:
    """The list with the page and filter that the person left."""
    home = url_for("portal.notices.index")
    target = safe_next(request.form.get("back"))
    return target if target.partition("?")[0] == home else home
