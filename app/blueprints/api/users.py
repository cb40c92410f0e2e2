"""People: yourself, everyone for admins, and the long-lived access tokens that admins issue."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import (
    Body,
    Cursored,
    CursorPage,
    Word,
    me,
    page,
    route,
    sent_members,
    unit,
    with_fields,
)
from app.domain import fields, identity, passwords, teams, tokens
from app.domain.errors import Invalid
from app.domain.person import Person, PersonFields, Role
from app.extensions import transaction
from app.workflows import offboarding

Password = Annotated[str, Meta(max_length=4096)]


class Me(msgspec.Struct, kw_only=True):
    """Yourself. `teams` are the ids of the teams that you are in."""

    username: str
    email: str | None
    role: str
    scopes: list[str]
    teams: list[str]
    id: str
    must_change_password: bool


class NamedUser(msgspec.Struct, kw_only=True):
    """A person has an id and a name, and what is declared of every person."""

    id: str
    username: str


if TYPE_CHECKING:
    DeclaredUser = NamedUser
    UserBody = Body
else:
    DeclaredUser = with_fields(NamedUser, PersonFields)
    UserBody = with_fields(Body, PersonFields, absent=UNSET, nullable=("scopes",))


class User(DeclaredUser, kw_only=True):
    must_change_password: bool
    created_at: datetime
    last_seen_at: datetime | None


class UserPage(CursorPage, kw_only=True):
    data: list[User]


class NewUser(UserBody, kw_only=True):
    username: Word
    password: Password


class UserChange(UserBody, kw_only=True):
    """What you leave out stays unchanged."""

    username: Word | UnsetType = UNSET
    password: Password | None | UnsetType = UNSET


class TokenRequest(Body, kw_only=True):
    scopes: list[Word] | None = None


class IssuedToken(msgspec.Struct, kw_only=True):
    id: str
    username: str
    scopes: list[str]
    issued_by: str | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class NewToken(IssuedToken, kw_only=True):
    """The answer when a token is issued: the only time that it is shown."""

    access_token: str
    refresh_token: str | None
    token_type: str = "bearer"
    expires_in: int
    scope: str


class TokenPage(CursorPage, kw_only=True):
    data: list[IssuedToken]


class Query(Cursored, kw_only=True):
    search: str | None = None
    role: Role | None = None


def show(person: Person) -> User:
    return User(
        id=person.id,
        username=person.username,
        **fields.told(PersonFields, person),
        must_change_password=person.must_change_password,
        created_at=person.created_at,
        last_seen_at=person.last_seen_at,
    )


def show_me(person: Person) -> Me:
    return Me(
        id=person.id,
        username=person.username,
        email=person.email,
        role=person.role,
        scopes=list(person.held_scopes),
        teams=[membership.team_id for membership in teams.memberships_of(person)],
        must_change_password=person.must_change_password,
    )


@route("GET", "/users/me", scope="any", answer=Me)
def whoami() -> Me:
    """Returns the person behind the access token or the session."""
    return show_me(me())


@route("GET", "/admin/users", scope="admin", query=Query, answer=UserPage)
def index(query: Query) -> dict[str, Any]:
    """Lists everyone by name. `search` looks in names and e-mail addresses."""
    return page(identity.people(search=query.search, role=query.role), show)


@route("POST", "/admin/users", scope="admin", answer=User, status=201, body=NewUser)
def create(body: NewUser) -> User:
    """Creates a person."""
    by = me()
    password = passwords.hashed(body.password)

    def work() -> User:
        return show(
            identity.create(
                by=by, username=body.username, password=password, **sent_members(body, "username", "password")
            )
        )

    return transaction(work)


@route("GET", "/admin/users/<username>", scope="admin", answer=User)
def detail(username: str) -> User:
    """Returns one person."""
    return show(identity.named(username))


@route("PUT", "/admin/users/<username>", scope="admin", answer=User, body=UserChange)
def change(username: str, body: UserChange) -> User:
    """Changes a person."""
    by = me()
    password = passwords.hashed(body.password) if body.password else None

    def work() -> User:
        person = identity.named(username)
        if body.username is not UNSET and body.username.lower() != person.username.lower():
            raise Invalid("A name cannot be changed.", "username")
        return show(identity.update(person, by=by, password=password, **sent_members(body, "username", "password")))

    return unit(work)


@route("DELETE", "/admin/users/<username>", scope="admin", status=204, writes=True)
def remove(username: str) -> None:
    """Deletes a person with their keys, subscriptions and tokens."""
    offboarding.delete(identity.named(username), by=me())


def show_token(token: tokens.AccessToken) -> IssuedToken:
    return IssuedToken(
        id=token.id,
        username=token.person.username,
        scopes=list(token.scopes),
        issued_by=token.issued_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
    )


@route("POST", "/admin/token/<username>", scope="admin", answer=NewToken, status=201, body=TokenRequest, writes=True)
def issue(username: str, body: TokenRequest) -> NewToken:
    """Issues a long-lived access token for a person. This answer is the only one with the token, and with the refresh token,
    which gets another one of the same life at `POST /refresh-token`."""
    grant = tokens.issue(identity.named(username), by=me(), scopes=body.scopes, refreshable=True)
    issued_token = show_token(grant.token)
    return NewToken(
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        expires_in=grant.expires_in,
        scope=" ".join(grant.scopes),
        **{field: getattr(issued_token, field) for field in issued_token.__struct_fields__},
    )


@route("GET", "/admin/tokens", scope="admin", answer=TokenPage)
def issued() -> dict[str, Any]:
    """Lists the long-lived tokens, revoked ones included."""
    return page(tokens.long_lived(), show_token)


@route("DELETE", "/admin/token/<username>/revoke", scope="admin", status=204, writes=True)
def revoke(username: str) -> None:
    """Revokes all access and refresh tokens of a person. They are refused from the next request on."""
    tokens.revoke_of(identity.named(username), by=me())
