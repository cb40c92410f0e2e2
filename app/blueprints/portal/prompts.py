"""Prompts: your own, your teams' and some to begin with; each with its versions, how they differ, and what they cost."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from wtforms import SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length

from app.blueprints.portal.person import me
from app.domain import prompts
from app.domain.errors import DomainError
from app.domain.prompts import LONGEST_DESCRIPTION, LONGEST_NAME, LONGEST_TEMPLATE, Prompt
from app.extensions import db, transaction
from app.pages.prompts import STARTERS, difference
from app.web.forms import EditForm, blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships

COLUMNS = {"name": Prompt.name, "changed": Prompt.updated_at}
TOO_LONG = "Use at most %(max)d characters."

bp = Blueprint("prompts", __name__)


class PromptForm(EditForm):
    """A prompt. Its team is chosen once."""

    name = StringField("Name", [InputRequired("Enter a name."), Length(max=LONGEST_NAME, message=TOO_LONG)])
    description = StringField("Description", [Length(max=LONGEST_DESCRIPTION, message=TOO_LONG)])
    template = TextAreaField(
        "Template",
        [InputRequired("Enter a template."), Length(max=LONGEST_TEMPLATE, message=TOO_LONG)],
        description="Variables stand in double braces, such as {{language}}.",
        render_kw={"rows": 8},
    )
    model = StringField(
        "Model", [Length(max=256, message=TOO_LONG)], description="For calls that name none. May be empty."
    )
    team = SelectField("Who can use it", choices=[SelectChoice("", "Only you")], default="")

    def changes(self) -> dict[str, str | None]:
        """The fields as the domain takes them; browsers end lines by two characters."""
        return {
            "name": self.name.data or "",
            "description": self.description.data or None,
            "template": (self.template.data or "").replace("\r\n", "\n"),
            "model": self.model.data or None,
        }

    @classmethod
    def of(cls, prompt: Prompt) -> PromptForm:
        form = cls(formdata=None, obj=prompt)
        del form.team
        return form


@bp.get("/prompts")
def index() -> Response:
    filters = filters_from_request()
    return list_page(
        "portal/prompts",
        prompts.search(me(), filters.search),
        COLUMNS,
        search=filters.search,
        teams={one.team_id: one.team.name for one in memberships(me())},
        starters=STARTERS,
    )


@bp.get("/prompts/new")
def new() -> Response:
    """An empty form, or one with a prompt to begin with."""
    starter = next((one for one in STARTERS if one.id == request.args.get("from")), None)
    form = _for_new(PromptForm(formdata=None, data=starter._asdict() if starter else None))
    return render("portal/prompts/new.html", form=form)


@bp.post("/prompts")
def create() -> Response:
    form = _for_new(PromptForm())
    if not form.validate_on_submit():
        return render("portal/prompts/new.html", status=422, form=form)
    try:
        made = transaction(lambda: prompts.create(by=me(), team_id=form.team.data or None, **form.changes()))  # type: ignore[arg-type]
    except DomainError as error:
        return render("portal/prompts/new.html", status=blame(form, error, team_id="team"), form=form)
    toast_next("success", f"Prompt {made.name} created.")
    return see_other(url_for("portal.prompts.detail", id=made.id))


@bp.get("/prompts/<id>")
def detail(id: str) -> Response:
    prompt = prompts.get_visible(me(), id)
    return _page(prompt, PromptForm.of(prompt).as_opened())


@bp.post("/prompts/<id>")
def change(id: str) -> Response:
    prompt, form = prompts.get_visible(me(), id, change=True), PromptForm()
    del form.team
    if not form.validate_on_submit():
        return _page(prompt, form, 422)
    try:
        form.save(lambda: PromptForm.of(prompt), lambda: prompts.update(prompt, by=me(), **form.changes()))
    except DomainError as error:
        return _page(prompts.get_visible(me(), id), form, blame(form, error))
    toast_next("success", f"Prompt {prompt.name} saved as version {prompt.version}.")
    return see_other(url_for("portal.prompts.detail", id=id))


@bp.get("/prompts/<id>/deletion")
def deletion(id: str) -> Response:
    return render("portal/prompts/deletion.html", prompt=prompts.get_visible(me(), id, change=True))


@bp.post("/prompts/<id>/deletion")
def delete(id: str) -> Response:
    prompt = prompts.get_visible(me(), id, change=True)
    name = prompt.name
    transaction(lambda: prompts.delete(prompt, by=me()))
    toast_next("success", f"Prompt {name} deleted.")
    return see_other(url_for("portal.prompts.index"))


def _for_new(form: PromptForm) -> PromptForm:
    joined = [SelectChoice(one.team_id, f"Team {one.team.name}") for one in memberships(me())]
    form.team.choices = [SelectChoice("", "Only you"), *joined]
    return form


def _page(prompt: Prompt, form: PromptForm, status: int = 200) -> Response:
    rows = list(db.session.scalars(prompts.versions_of(prompt).limit(50)))
    shown = request.args.get("version", type=int)
    after = next((row for row in rows if row.version == shown), rows[0])
    before = next((row for row in rows if row.version == after.version - 1), None)
    return render(
        "portal/prompts/detail.html",
        status=status,
        prompt=prompt,
        form=form,
        may_change=prompts.may_change(me(), prompt),
        versions=rows,
        after=after,
        before=before,
        lines=difference(before, after) if before else None,
    )
