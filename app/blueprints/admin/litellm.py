"""LiteLLM: its connection, plans with their steps as differences, conflicts to decide, and runs."""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from flask_wtf import FlaskForm
from wtforms import IntegerField, PasswordField, StringField
from wtforms.validators import InputRequired, Length, NumberRange

from app.blueprints.admin.person import me
from app.domain import sync
from app.domain.errors import DomainError
from app.extensions import db, transaction
from app.web.forms import blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.workflows import litellm_sync

SHOWN = 10  # plans and runs
ENTITIES = {"models": "Model", "users": "Person", "teams": "Team", "members": "Member", "keys": "API key"}
ACTS = {"create": "Create", "update": "Change", "delete": "Delete", "conflict": "Conflict"}
SIDES = {"portico": "In Portico", "litellm": "At LiteLLM"}

bp = Blueprint("litellm", __name__)


class ConnectionForm(FlaskForm):
    """Where LiteLLM is. An empty key keeps the stored one."""

    url = StringField(
        "Address",
        [InputRequired("Enter an address."), Length(max=sync.LONGEST_URL)],
        description="Such as https://litellm.example.org, without /v1.",
        render_kw={"spellcheck": "false", "inputmode": "url"},
    )
    master_key = PasswordField(
        "Master key",
        [Length(max=1000)],
        description="It is sent to this address only. Leave it empty to keep the stored key.",
        render_kw={"autocomplete": "off"},
    )
    interval_minutes = IntegerField(
        "Interval in minutes",
        [InputRequired("Enter a number."), NumberRange(0, sync.MOST_INTERVAL_MINUTES)],
        default=0,
        description="How often Portico plans and applies by itself; 0 for by hand.",
    )
    timeout_s = IntegerField(
        "Timeout in seconds",
        [InputRequired("Enter a number."), NumberRange(1, sync.MOST_TIMEOUT_S)],
        default=10,
        description="How long each answer is waited for.",
    )


@bp.get("/admin/litellm")
def index() -> Response:
    found = sync.connection()
    values = (
        {"url": found.url, "interval_minutes": found.interval_minutes, "timeout_s": found.timeout_s} if found else {}
    )
    return _page(ConnectionForm(formdata=None, data=values))


@bp.post("/admin/litellm")
def connect() -> Response:
    form = ConnectionForm()
    if not form.validate_on_submit():
        return _page(form, 422)
    given = {name: form[name].data for name in ("url", "master_key", "interval_minutes", "timeout_s")}
    try:
        transaction(lambda: sync.connect(by=me(), **given))
    except DomainError as error:
        return _page(form, blame(form, error))
    toast_next("success", "The connection is saved. Test it, then make a plan.")
    return see_other(url_for("admin.litellm.index"))


@bp.post("/admin/litellm/test")
def test() -> Response:
    try:
        trial = litellm_sync.test()
    except DomainError as error:
        toast_next("danger", error.message)
    else:
        toast_next("success" if trial.result == "ok" else "danger", trial.detail)
    return see_other(url_for("admin.litellm.index"))


@bp.post("/admin/litellm/plans")
def make_plan() -> Response:
    try:
        id = transaction(lambda: litellm_sync.plan(None, by=me()).id)
    except DomainError as error:
        toast_next("danger", error.message)
        return see_other(url_for("admin.litellm.index"))
    return see_other(url_for("admin.litellm.plan", id=id))


@bp.get("/admin/litellm/plans/<id>")
def plan(id: str) -> Response:
    found = sync.plan(id)
    filters = filters_from_request(entity=ENTITIES, act=ACTS, side=SIDES)
    chosen = {name: filters[name] for name in ("entity", "act", "side")}
    return list_page(
        "admin/litellm/plan",
        sync.steps(found, **chosen),
        plan=found,
        run=db.session.scalar(sync.runs().where(sync.SyncRun.plan_id == id)),
        chosen=chosen,
        entities=ENTITIES,
        acts=ACTS,
        sides=SIDES,
    )


@bp.post("/admin/litellm/plans/<id>/run")
def apply(id: str) -> Response:
    try:
        transaction(lambda: litellm_sync.apply(sync.plan(id), by=me()))
    except DomainError as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "The plan is being applied.")
    return see_other(url_for("admin.litellm.plan", id=id))


@bp.post("/admin/litellm/runs/<id>/resumption")
def resume(id: str) -> Response:
    plan_id = transaction(lambda: litellm_sync.resume(sync.run(id), by=me()).plan_id)
    toast_next("success", "The run goes on.")
    return see_other(url_for("admin.litellm.plan", id=plan_id))


@bp.post("/admin/litellm/conflicts/<id>/<winner>")
def decide(id: str, winner: str) -> Response:
    try:
        plan_id = transaction(lambda: sync.decide(id, winner, by=me()).plan_id)  # type: ignore[arg-type]
    except DomainError as error:
        toast_next("warning", error.message)
        return see_other(url_for("admin.litellm.index"))
    toast_next("success", "The next plan carries the decision out.")
    return see_other(url_for("admin.litellm.plan", id=plan_id, act="conflict"))


def _page(form: ConnectionForm, status: int = 200) -> Response:
    return render(
        "admin/litellm/index.html",
        status=status,
        form=form,
        connection=sync.connection(),
        standing=sync.standing(),
        plans=db.session.scalars(sync.plans().limit(SHOWN)).all(),
        runs=db.session.scalars(sync.runs().limit(SHOWN)).all(),
        waiting=len(db.session.scalars(sync.conflicts().limit(1000)).all()),
        next_at=litellm_sync.next_at(),
    )
