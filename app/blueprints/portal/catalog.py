"""The catalogue: which models there are, what they cost, how they are called, and asking for access to one."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from wtforms import TextAreaField
from wtforms.validators import Length

from app.blueprints.portal.person import me
from app.blueprints.portal.snippets import VARIABLE, base_url, quickstart
from app.domain import catalog, offering, subscriptions
from app.domain.catalog import CAPABILITIES, Model
from app.domain.errors import DomainError
from app.extensions import transaction
from app.web.forms import blame
from app.web.lists import page_of
from app.web.render import render, see_other, toast_next


class AccessForm(FlaskForm):
    """Asks for access; a restricted model wants to know what for."""

    justification = TextAreaField(
        "What do you need it for?",
        [Length(max=subscriptions.LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"An administrator reads this before deciding. At most {subscriptions.LONGEST_TEXT} characters.",
    )


def open_on(door: Blueprint) -> None:
    door.get("/models")(models)
    door.get("/models/<path:name>")(model)
    door.post("/models/<path:name>/subscription")(subscribe)


def models() -> Response:
    search = request.args.get("q", "").strip()[:200]
    capability = request.args.get("capability", "")
    capability = capability if capability in CAPABILITIES else ""
    return render(
        "portal/catalog/index.html",
        "portal/catalog/_list.html",
        found=page_of(catalog.offered_models(search=search or None, capability=capability or None)),
        search=search,
        capability=capability,
        capabilities=CAPABILITIES,
        latest=subscriptions.latest_by_model(me()),
    )


def model(name: str) -> Response:
    return _page(offering.visible(me(), name), AccessForm())


def subscribe(name: str) -> Response:
    person = me()
    found = offering.visible(person, name)
    form = AccessForm()
    if found.restricted and not (form.justification.data or "").strip():
        form.validate()
        form.justification.errors = ["Say in a sentence what you need this model for."]
        return _page(found, form, 422)
    if not form.validate_on_submit():
        return _page(found, form, 422)
    try:
        made, new = transaction(
            subscriptions.request, person, found, by=person, justification=form.justification.data or None
        )
    except DomainError as error:
        blame(form, error)
        return _page(found, form, 422)
    if not new:
        toast_next("info", f"You have asked for {name} already: it is {made.status}.")
    elif made.status == "pending":
        toast_next("success", f"Your request for {name} is sent. An administrator will decide.")
    else:
        toast_next("success", f"You are subscribed to {name}. Create a key to call it.")
    return see_other(url_for("portal.model", name=name))


def _page(found: Model, form: AccessForm, status: int = 200) -> Response:
    latest = subscriptions.latest_by_model(me()).get(found.id)
    form.justification.flags.required = found.restricted
    return render(
        "portal/catalog/model.html",
        status=status,
        model=found,
        form=form,
        subscription=latest,
        panes=quickstart(found),
        base_url=base_url(),
        variable=VARIABLE,
    )
