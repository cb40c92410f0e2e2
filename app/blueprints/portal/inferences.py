"""Your history of the playground and of calls without a key: figures of each call, and its words where you wanted them kept.

Nobody else can see it, admins neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, url_for

from app.blueprints.portal.person import me
from app.domain import inferences
from app.domain.inferences import Inference
from app.extensions import db, transaction
from app.metering import money
from app.web import exports
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next

MOST = 500  # calls of the file in Markdown
COLUMNS = {"at": Inference.id, "model": Inference.model, "cost": Inference.cost_nano}
EXPORT_COLUMNS: dict[str, Any] = {
    "id": lambda one: one.id,
    "at": lambda one: one.at,
    "model": lambda one: one.model,
    "prompt_id": lambda one: one.prompt_id,
    "version": lambda one: one.prompt_version,
    "input": lambda one: one.asked,
    "output": lambda one: one.output,
    "prompt_tokens": lambda one: one.prompt_tokens,
    "completion_tokens": lambda one: one.completion_tokens,
    "cost": lambda one: money.text(one.cost_nano),
    "status": lambda one: one.status,
}

bp = Blueprint("inferences", __name__)


@bp.get("/playground/history")
def index() -> Response:
    filters = filters_from_request()
    return list_page(
        "portal/inferences",
        inferences.owned_by(me(), filters.search),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "history", EXPORT_COLUMNS, rows),
        search=filters.search,
    )


@bp.get("/playground/history/markdown")
def markdown() -> Response:
    """The newest calls whose words are kept, as one text in Markdown."""
    kept = inferences.owned_by(me(), filters_from_request().search).where(Inference.output.is_not(None))
    text = "".join(_markdown(db.session.scalars(kept.limit(MOST))))
    response = Response(text, mimetype="text/markdown")
    response.headers["Content-Disposition"] = 'attachment; filename="history.md"'
    return response


@bp.get("/playground/history/<id>")
def detail(id: str) -> Response:
    return render("portal/inferences/detail.html", one=inferences.get_own(me(), id))


@bp.get("/playground/history/clearing")
def clearing() -> Response:
    return render("portal/inferences/clearing.html")


@bp.post("/playground/history/clearing")
def clear() -> Response:
    person = me()
    transaction(lambda: inferences.clear(person))
    toast_next("success", "Your history is cleared.")
    return see_other(url_for("portal.inferences.index"))


def _markdown(rows: Iterable[Inference]) -> Iterable[str]:
    for one in rows:
        yield f"# {one.model}, {one.at:%Y-%m-%d %H:%M} UTC\n\n"
        for role, text in one.messages:
            yield f"## {role.capitalize()}\n\n{text}\n\n"
        yield f"## Answer\n\n{one.output or ''}\n\n"
