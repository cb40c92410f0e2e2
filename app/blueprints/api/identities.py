"""Single sign-on for admins: which accounts are linked to which subjects, and what a sign-in would give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app import current
from app.blueprints.api.contract import Body, Page, Paged, listed, me, route
from app.domain import identities, identity
from app.domain.errors import Conflict, Invalid
from app.domain.identities import Identity
from app.extensions import db
from app.oidc.errors import SignInFailed
from app.oidc.provider import profile_of
from app.workflows import single_sign_on
from app.workflows.single_sign_on import Account

Name = Annotated[str, Meta(max_length=255)]


class LinkedIdentity(msgspec.Struct, kw_only=True):
    """One subject of an identity provider that signs in to this account."""

    id: str
    issuer: str
    subject: str
    created_at: datetime
    last_used_at: datetime | None


class IdentityPage(Page, kw_only=True):
    data: list[LinkedIdentity]


class NewIdentity(Body, kw_only=True):
    issuer: Name
    subject: Name


class PreviewRequest(Body, kw_only=True):
    """The claims of an ID token, userinfo or access token, as the provider gives them."""

    claims: dict[str, Any]


class TeamChanges(msgspec.Struct, kw_only=True):
    """Names of teams."""

    add: list[str]
    remove: list[str]


class SignInPreview(msgspec.Struct, kw_only=True):
    """What a sign-in would give. `must_link`: the account exists, and its password or an admin must link it first."""

    username: str
    account: Account
    role: str
    teams: TeamChanges


def show(identity: Identity) -> LinkedIdentity:
    return LinkedIdentity(
        id=identity.id,
        issuer=identity.issuer,
        subject=identity.subject,
        created_at=identity.created_at,
        last_used_at=identity.last_used_at,
    )


@route("GET", "/admin/users/<username>/identities", scope="admin", query=Paged, answer=IdentityPage)
def index(username: str, query: Paged) -> dict[str, Any]:
    """Lists the subjects that an account is linked to."""
    found = db.session.scalars(identities.of(identity.named(username)))
    return listed([show(one) for one in found])


@route(
    "POST", "/admin/users/<username>/identities", scope="admin", body=NewIdentity, answer=LinkedIdentity, status=201, writes=True
)  # fmt: skip
def link(username: str, body: NewIdentity) -> LinkedIdentity:
    """Links an account to a subject, who can sign in to it from then on."""
    return show(identities.link(identity.named(username), issuer=body.issuer, subject=body.subject, by=me()))


@route("DELETE", "/admin/users/<username>/identities/<id>", scope="admin", status=204, writes=True)
def unlink(username: str, id: str) -> None:
    """Unlinks an account."""
    identities.unlink(identities.get_of(identity.named(username), id), by=me())


@route("POST", "/api/oidc/preview", scope="admin", body=PreviewRequest, answer=SignInPreview)
def preview(body: PreviewRequest) -> SignInPreview:
    """Shows what a sign-in with these claims would give now. It changes nothing."""
    settings = current.config().oidc
    if not settings.issuer:
        raise Conflict("Single sign-on is off. Set oidc.issuer.")
    try:
        found = single_sign_on.plan(profile_of(settings, settings.issuer, [body.claims]))
    except SignInFailed as error:
        raise Invalid(error.message, "claims.sub") from None
    return SignInPreview(
        username=found.username,
        account=found.account,
        role=found.role,
        teams=TeamChanges(add=found.add, remove=found.removed),
    )
