"""Single sign-on: what is set, and what a sign-in with given claims would give. Trying it changes nothing."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from flask_wtf import FlaskForm
from wtforms.validators import InputRequired

from app import current
from app.domain.person import ROLE_NAMES
from app.oidc.errors import SignInFailed
from app.oidc.provider import profile_of
from app.web.forms import JsonField
from app.web.links import origin
from app.web.render import render
from app.workflows import single_sign_on
from app.workflows.single_sign_on import Plan

bp = Blueprint("single_sign_on", __name__)


class ClaimsForm(FlaskForm):
    """The claims of somebody who would sign in."""

    claims = JsonField(
        "Claims",
        [InputRequired("Enter the claims as JSON.")],
        description="As the provider puts them into an ID token or userinfo.",
        render_kw={"rows": 8, "spellcheck": "false", "autocomplete": "off"},
    )


@bp.get("/admin/single-sign-on")
def index() -> Response:
    settings = current.config().oidc
    claim = settings.username_claim
    example = {"sub": "248289761001", claim: "ada", "email": "ada@example.org", settings.groups_claim: ["example"]}
    return _page(ClaimsForm(formdata=None, data={"claims": example}))


@bp.post("/admin/single-sign-on")
def preview() -> Response:
    form, settings = ClaimsForm(), current.config().oidc
    if not settings.issuer or not form.validate_on_submit():
        return _page(form, status=422)
    claims: Any = form.claims.data
    if not isinstance(claims, dict):
        form.claims.errors = ['Enter an object, such as {"sub": "248289761001"}.']
        return _page(form, status=422)
    try:
        found = single_sign_on.plan(profile_of(settings, settings.issuer, [claims]))
    except SignInFailed as error:
        form.claims.errors = [error.message]
        return _page(form, status=422)
    return _page(form, found)


def _page(form: ClaimsForm, found: Plan | None = None, status: int = 200) -> Response:
    config = current.config()
    return render(
        "admin/single_sign_on/index.html",
        status=status,
        form=form,
        found=found,
        settings=config.oidc,
        local=config.auth.local,
        scim=config.scim.token is not None,
        origin=origin(),
        roles=ROLE_NAMES,
    )
