"""Background jobs: the queue, the workers, the schedule, and failed jobs, to be retried or removed."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from redis import RedisError

from app.blueprints.admin.person import me
from app.domain.errors import Conflict, DomainError
from app.extensions import transaction
from app.web.formats import MOST_COUNTED
from app.web.lists import SIZES
from app.web.render import render, see_other, toast_next
from app.workflows import background_jobs

bp = Blueprint("jobs", __name__)


@bp.get("/admin/jobs")
def index() -> Response:
    """Also works while Redis is away: the page then says so."""
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    number = max(1, min(request.args.get("page", 1, type=int) or 1, MOST_COUNTED // size))
    try:
        board = background_jobs.board(number, size)
    except RedisError:
        board = None
    return render("admin/jobs/index.html", "admin/jobs/_jobs.html", board=board, number=number, size=size)


@bp.post("/admin/jobs/<id>/retry")
def retry(id: str) -> Response:
    try:
        name = transaction(background_jobs.retry, id, by=me())
    except DomainError as error:
        toast_next("warning" if isinstance(error, Conflict) else "danger", error.message)
    else:
        toast_next("success", f"The job {name} is in the queue again.")
    return see_other(url_for("admin.jobs.index"))


@bp.post("/admin/jobs/<id>/removal")
def remove(id: str) -> Response:
    try:
        name = transaction(background_jobs.remove, id, by=me())
    except DomainError as error:
        toast_next("warning" if isinstance(error, Conflict) else "danger", error.message)
    else:
        toast_next("success", f"The failed job {name} is removed.")
    return see_other(url_for("admin.jobs.index"))
