"""Several keys at once: pause, resume or revoke them. Each is done by itself, and the answer has a result for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, abort, request, url_for

from app.blueprints.portal.person import me
from app.domain import keys
from app.domain.errors import DomainError
from app.domain.keys import ApiKey
from app.pages.selection import MOST, Item, act_on_each
from app.web.forms import is_confirmed_by
from app.web.links import url_if_served
from app.web.render import render

ACTS: dict[str, Callable[..., Any]] = {"pause": keys.pause, "resume": keys.resume, "revoke": keys.revoke}
DONE = {"pause": "Paused", "resume": "Resumed", "revoke": "Revoked"}

bp = Blueprint("key_selection", __name__)


@bp.get("/keys/selection")
def index() -> Response:
    return _page(_chosen(request.args.getlist("ids")))


@bp.post("/keys/selection")
def act() -> Response:
    person, name = me(), request.form.get("act", "")
    verb = ACTS.get(name)
    if verb is None:
        abort(400, "Choose what to do with the keys.")
    chosen = _chosen(request.form.getlist("ids"))
    if not chosen:
        return _page(chosen)
    if name == "revoke" and not is_confirmed_by(_phrase(len(chosen))):
        return _page(chosen, fault=True)
    each = [Item(key.id, key.name, url_for("portal.keys.detail", id=key.id)) for key in chosen]
    results = act_on_each(each, lambda id: verb(keys.get_visible(person, id, change=True), by=person))
    return render(
        "components/selected.html", results=results, done=DONE[name], back=_list(), noun="key", list_name="API keys"
    )


def _chosen(ids: list[str]) -> list[ApiKey]:
    """The keys with these ids that this person may change; others are left out."""
    chosen = []
    for id in list(dict.fromkeys(ids))[:MOST]:
        try:
            chosen.append(keys.get_visible(me(), id, change=True))
        except DomainError:
            continue
    return chosen


def _page(chosen: list[ApiKey], *, fault: bool = False) -> Response:
    return render(
        "portal/keys/selection.html",
        status=422 if fault else 200,
        keys=chosen,
        phrase=_phrase(len(chosen)),
        fault=fault,
        back=_list(),
        most=MOST,
    )


def _phrase(count: int) -> str:
    """What must be typed to revoke this many keys."""
    return f"revoke {count}"


def _list() -> str:
    """The list that the keys were chosen in."""
    everybodys = url_if_served("admin.keys.index") if me().sees_everything else None
    came_from_there = "all" in (request.args.get("list"), request.form.get("list"))
    return everybodys if everybodys and came_from_there else url_for("portal.keys.index")
