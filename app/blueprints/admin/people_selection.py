"""Several people at once: deactivate or activate them. Each is done by itself, and the answer has a result for each."""

from __future__ import annotations

from flask import Blueprint, Response, abort, request, url_for

from app.blueprints.admin.person import me
from app.domain import identity
from app.domain.errors import Conflict, NotFound
from app.domain.person import ROLE_NAMES, Person
from app.pages.selection import MOST, Item, act_on_each
from app.web.forms import is_confirmed_by
from app.web.render import render

DONE = {"deactivate": "Deactivated", "activate": "Activated"}

bp = Blueprint("people_selection", __name__)


@bp.get("/admin/people-selection")
def index() -> Response:
    return _page(_chosen(request.args.getlist("names")))


@bp.post("/admin/people-selection")
def act() -> Response:
    name = request.form.get("act", "")
    if name not in DONE:
        abort(400, "Choose what to do with the people.")
    chosen = _chosen(request.form.getlist("names"))
    if not chosen:
        return _page(chosen)
    disabled = name == "deactivate"
    if disabled and not is_confirmed_by(_phrase(len(chosen))):
        return _page(chosen, fault=True)
    each = [Item(one.username, one.username, url_for("admin.people.detail", username=one.username)) for one in chosen]
    results = act_on_each(each, lambda username: _set(username, disabled))
    back = url_for("admin.people.index")
    return render(
        "components/selected.html", results=results, done=DONE[name], back=back, noun="person", list_name="People"
    )


def _set(username: str, disabled: bool) -> None:
    person, by = identity.named(username), me()
    if disabled and person.id == by.id:
        raise Conflict("This is your own account. Deactivate it on its own page.")
    identity.update(person, by=by, disabled=disabled)


def _chosen(usernames: list[str]) -> list[Person]:
    """The people with these names; others are left out."""
    chosen = []
    for username in list(dict.fromkeys(usernames))[:MOST]:
        try:
            chosen.append(identity.named(username))
        except NotFound:
            continue
    return chosen


def _page(chosen: list[Person], *, fault: bool = False) -> Response:
    return render(
        "admin/people/selection.html",
        status=422 if fault else 200,
        people=chosen,
        phrase=_phrase(len(chosen)),
        fault=fault,
        roles=ROLE_NAMES,
    )


def _phrase(count: int) -> str:
    """What must be typed to deactivate this many people."""
    return f"deactivate {count}"
