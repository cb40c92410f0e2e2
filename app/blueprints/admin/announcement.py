"""The announcement: a banner above every page. Publishing one replaces the one before."""

from __future__ import annotations

from datetime import UTC

from flask import Blueprint, Response, url_for
from wtforms import DateTimeLocalField, SelectField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length, Optional

from app.blueprints.admin.person import me
from app.domain import announcements
from app.domain.announcements import LONGEST_TEXT
from app.domain.errors import DomainError
from app.extensions import db, transaction
from app.pages.badges import badges
from app.web.forms import EditForm, blame
from app.web.render import render, see_other, toast_next

LEVELS = [SelectChoice("info", "Note"), SelectChoice("warning", "Warning"), SelectChoice("danger", "Disruption")]

bp = Blueprint("announcement", __name__)


class AnnouncementForm(EditForm):
    """What everyone should read, how urgent it is, and until when it is shown."""

    level = SelectField("Kind", choices=LEVELS, default="info")
    text = TextAreaField(
        "Text",
        [InputRequired("Write what everybody is to read."), Length(max=LONGEST_TEXT)],
        description=f"One or two plain sentences, at most {LONGEST_TEXT} characters.",
        render_kw={"maxlength": LONGEST_TEXT},
    )
    ends_at = DateTimeLocalField(
        "Ends", [Optional()], description="In UTC. Empty to leave it up until it is taken down."
    )


@bp.get("/admin/announcement")
def index() -> Response:
    return _page(AnnouncementForm(formdata=None).as_opened(_current_form()))


@bp.post("/admin/announcement")
def put_up() -> Response:
    form = AnnouncementForm()
    if not form.validate_on_submit():
        return _page(form, 422)
    end = form.ends_at.data.replace(tzinfo=UTC) if form.ends_at.data else None
    try:
        form.save(
            _current_form, announcements.put_up, by=me(), level=form.level.data, text=form.text.data or "", ends_at=end
        )
    except DomainError as error:
        return _page(form, blame(form, error))
    toast_next("success", "The announcement is above every page now.")
    return see_other(url_for("admin.announcement.index"))


@bp.post("/admin/announcement/removal")
def take_down() -> Response:
    was_up = transaction(announcements.take_down, by=me())
    toast_next("success" if was_up else "info", "The announcement is taken down." if was_up else "There was none.")
    return see_other(url_for("admin.announcement.index"))


def _current_form() -> AnnouncementForm:
    """The form of the current announcement, which a new one would replace."""
    announcement = db.session.scalar(announcements.standing())
    if announcement is None:
        return AnnouncementForm(formdata=None)
    end = announcement.ends_at.replace(tzinfo=None) if announcement.ends_at else None
    form = AnnouncementForm(
        formdata=None, data={"level": announcement.level, "text": announcement.text, "ends_at": end}
    )
    form.beside = announcement.id
    return form


def _page(form: AnnouncementForm, status: int = 200) -> Response:
    return render("admin/announcement/index.html", status=status, form=form, standing=badges(me()).announcement)
