"""Saved views: the filters of a list of requests that a person named."""

from __future__ import annotations

from urllib.parse import parse_qsl

from flask import Blueprint, abort, request
from werkzeug.wrappers import Response

from app.blueprints.portal.person import me
from app.domain import saved_views
from app.domain.errors import DomainError
from app.extensions import db, transaction
from app.pages import usage_routes
from app.web.render import see_other, toast_next
from app.web.sign_in import safe_next

PATHS = (usage_routes.PORTAL.activity, usage_routes.ADMIN.activity)

bp = Blueprint("views", __name__)


@bp.post("/views")
def save() -> Response:
    """Saves the filters of a list, and opens it by them."""
    path = request.form.get("list", "")
    if path not in PATHS:
        abort(400, "There are no saved views of this page.")
    query = usage_routes.view_query(dict(parse_qsl(request.form.get("query", ""))))
    try:
        view = transaction(saved_views.save, me(), path=path, name=request.form.get("name", ""), query=query)
    except DomainError as error:
        toast_next("danger", error.message)
        return see_other(f"{path}?{query}" if query else path)
    toast_next("success", f"The view {view.name} is saved.")
    return see_other(view.href)


@bp.post("/views/<id>/deletion")
def delete(id: str) -> Response:
    view = saved_views.get_own(me(), id)
    name = view.name
    transaction(db.session.delete, view)
    toast_next("success", f"The view {name} is deleted.")
    return see_other(safe_next(request.form.get("back")))
