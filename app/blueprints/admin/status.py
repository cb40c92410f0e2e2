"""The state of this Portico in words, with a repair for counters that differ from the ledger.

The page shows what `app.workflows.status` gathers, and reloads itself while somebody looks at it.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request, url_for
from redis import RedisError

from app import current
from app.blueprints.admin.person import me
from app.domain.errors import Conflict
from app.extensions import transaction
from app.pages.first_steps import first_steps
from app.pages.usage import GONE, look_up_names
from app.web.htmx import htmx
from app.web.render import Level, render, see_other, toast_next
from app.workflows import reconcile, status, watch
from app.workflows.status import Condition

TRIES = 20  # a busy counter may be charged between its comparison and its repair

bp = Blueprint("status", __name__)


@bp.get("/admin/status")
def index() -> Response:
    now = status.present()
    return render(
        "admin/status/index.html",
        "admin/status/_status.html",
        now=now,
        alarms=_alarms(),
        first_steps=first_steps() if now.database.answers and not htmx.is_partial else [],
        **_drift(now),
    )


@bp.post("/admin/drift")
def repair() -> Response:
    """Compares one counter again and moves it by the current difference, not by the one that the page showed."""
    redis = current.redis()
    toast_next(*_repaired(reconcile.find(redis, request.form.get("counter", "")[:500])))
    return see_other(url_for("admin.status.index"))


def _alarms() -> list[watch.Alarm]:
    try:
        return watch.alarms(current.redis())
    except RedisError:  # the page says so
        return []


def _drift(now: Condition) -> dict[str, Any]:
    """The last repairs, and the names of the scopes whose counters differ or did, by id."""
    repairs = reconcile.repairs() if now.database.answers else []
    ids = {counter.id for counter in now.quotas.drift} if now.quotas else set()
    ids |= {counter.scopes[0][1] for counter in repairs}
    names = {id: name for (_, id), name in look_up_names({"key": ids, "user": ids}).items() if name != GONE}
    return {"repairs": repairs, "names": names}


def _repaired(drift: reconcile.Drift | None) -> tuple[Level, str]:
    """Repairs a counter. Returns the level and the text of the toast."""
    redis = current.redis()
    difference = drift
    for _ in range(TRIES):
        if difference is None:
            break
        try:
            transaction(reconcile.repair, redis, difference, by=me())
        except reconcile.Moved:
            difference = reconcile.again(redis, difference)
        except Conflict as error:
            return "warning", error.message
        else:
            status.forget_drift(redis, difference)
            return "success", "The counter matches the ledger again."
    if drift is None:
        return "info", "This counter matches the ledger now. Nothing was changed."
    return "warning", "The counter was charged all the while. Nothing was changed; try again in a moment."
