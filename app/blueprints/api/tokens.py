"""Sign-in for programs: access tokens, refreshing and inspecting them, and changing a password."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from flask import request
from msgspec import Meta

from app.blueprints.api.contract import Body, caller, me, route
from app.domain import identity, passwords, tokens
from app.domain.errors import Unauthenticated
from app.extensions import transaction

Text = Annotated[str, Meta(max_length=4096)]


class SignIn(Body, kw_only=True):
    """The form of `POST /token`. `scope` is a list of words; without it, the token gets every scope that the person
    has."""

    username: Annotated[str, Meta(max_length=200)]
    password: Text
    scope: Annotated[str, Meta(max_length=200)] = ""


class TokenAnswer(msgspec.Struct, kw_only=True):
    access_token: str
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str | None
    scope: str


class RefreshBody(Body, kw_only=True):
    refresh_token: Text


class PasswordBody(Body, kw_only=True):
    current_password: Text
    new_password: Text


class TokenInfo(msgspec.Struct, kw_only=True):
    id: str | None
    username: str
    role: str
    scope: str
    expires_at: datetime | None
    long_lived: bool


def _granted(grant: tokens.Grant) -> TokenAnswer:
    return TokenAnswer(
        access_token=grant.access_token,
        expires_in=grant.expires_in,
        refresh_token=grant.refresh_token,
        scope=" ".join(grant.scopes),
    )


@route("POST", "/token", scope=None, body=SignIn, form=True, answer=TokenAnswer, throttled=True)
def sign_in(body: SignIn) -> TokenAnswer:
    """Returns an access token and a refresh token for a username and a password."""
    person = identity.authenticate(body.username, body.password, request.remote_addr or "", "token")
    scopes = body.scope.split() or None
    person_id = person.id

    def grant() -> tokens.Grant:
        present = identity.by_id(person_id)
        if present is None:
            raise Unauthenticated("The username or the password is wrong.")
        identity.accept_sign_in(present, "token")
        return tokens.grant(present, scopes=scopes)

    return _granted(transaction(grant))


@route("POST", "/refresh-token", scope=None, body=RefreshBody, answer=TokenAnswer)
def refresh(body: RefreshBody) -> TokenAnswer:
    """Returns new tokens for a refresh token, which works once."""
    grant = transaction(tokens.refresh, body.refresh_token)
    if grant is None:
        raise Unauthenticated("The refresh token is not valid. Sign in again at POST /token.")
    return _granted(grant)


@route("GET", "/token-info", scope="any", answer=TokenInfo)
def info() -> TokenInfo:
    """Describes the access token of this request, or the browser session."""
    requester = caller()
    token = requester.token
    return TokenInfo(
        id=token.id if token else None,
        username=requester.person.username,
        role=requester.person.role,
        scope=" ".join(requester.scopes),
        expires_at=token.expires_at if token else None,
        long_lived=token.long_lived if token else False,
    )


@route("POST", "/change-password", body=PasswordBody, status=204, throttled=True)
def change_password(body: PasswordBody) -> None:
    """Changes your own password. Other sessions and tokens end; long-lived tokens stay valid."""
    person, requester = me(), caller()
    if not identity.is_password_of(person, body.current_password, request.remote_addr or ""):
        raise Unauthenticated("The current password is wrong.")
    password = passwords.hashed(body.new_password, "new_password")
    family = requester.token.family_id if requester.token else None
    transaction(
        identity.change_password,
        person,
        by=person,
        password=password,
        keep_session=requester.session,
        keep_family=family,
    )
