"""Dead letters: usage events that could not be read or written, and a decision about each.

A letter's text is shown with secrets masked. It is posted again unchanged, or dismissed with a reason.
"""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from flask_wtf import FlaskForm
from wtforms import TextAreaField
from wtforms.validators import InputRequired, Length

from app.blueprints.admin.person import me
from app.domain.errors import Conflict, DomainError
from app.extensions import transaction
from app.ledger import spools
from app.ledger.entries import DeadLetter
from app.runtime.logs import masked
from app.web.forms import blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.workflows import dead_letters
from app.workflows.dead_letters import LONGEST_NOTE, OPEN, STATES

EVERYTHING = "all"
SHOWN = 4000  # characters of a letter's text

bp = Blueprint("dead_letters", __name__)


class DismissalForm(FlaskForm):
    """Why an event will not be posted."""

    reason = TextAreaField(
        "Reason",
        [InputRequired("Enter a reason."), Length(max=LONGEST_NOTE, message="Use at most %(max)d characters.")],
        description=f"It is kept with the letter and in the audit. At most {LONGEST_NOTE} characters.",
    )


@bp.get("/admin/dead-letters")
def index() -> Response:
    filters = filters_from_request(longest=200, state=(*STATES, EVERYTHING), defaults={"state": OPEN})
    state = filters["state"]
    return list_page(
        "admin/dead_letters",
        dead_letters.search(state=None if state == EVERYTHING else state, search=filters.search),
        page=lambda listing: {"texts": {letter.id: _text(letter) for letter in listing.items}},
        search=filters.search,
        chosen=state,
    )


@bp.post("/admin/dead-letters/<id>/posting")
def post(id: str) -> Response:
    """Tries to post the event again: the database may accept it now, or this version may be able to read it."""
    letter = dead_letters.letter(id)
    try:
        event = spools.decode(letter.raw.encode())
        is_new = transaction(dead_letters.post, letter, event, by=me())
    except spools.Poison as error:
        toast_next("danger", f"It still cannot be read: {masked(str(error))}. Nothing was changed.")
    except DomainError as error:
        toast_next("warning" if isinstance(error, Conflict) else "danger", error.message)
    else:
        toast_next("success", "The event is in the ledger." if is_new else "The ledger already had this event.")
    return see_other(url_for("admin.dead_letters.index"))


@bp.get("/admin/dead-letters/<id>/dismissal")
def dismissal(id: str) -> Response:
    """The page that asks for the reason."""
    return _page(dead_letters.letter(id), DismissalForm(formdata=None))


@bp.post("/admin/dead-letters/<id>/dismissal")
def dismiss(id: str) -> Response:
    letter, form = dead_letters.letter(id), DismissalForm()
    if not form.validate_on_submit():
        return _page(letter, form, 422)
    try:
        transaction(dead_letters.dismiss, letter, by=me(), reason=form.reason.data or "")
    except Conflict:
        return _page(dead_letters.letter(id), form, 409)
    except DomainError as error:
        blame(form, error)
        return _page(letter, form, 422)
    toast_next("success", "The letter is dismissed.")
    return see_other(url_for("admin.dead_letters.index"))


def _page(letter: DeadLetter, form: DismissalForm, status: int = 200) -> Response:
    """409 means that somebody else decided first."""
    return render("admin/dead_letters/dismissal.html", status=status, letter=letter, text=_text(letter), form=form)


def _text(letter: DeadLetter) -> str:
    text: str = masked(letter.raw)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters in all)"
