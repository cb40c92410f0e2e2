"""API keys: create, change, rotate and revoke them. A key's secret is shown once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, amount, me, page, route, sent_members, with_fields
from app.blueprints.api.subscriptions import BudgetBody, utc
from app.clock import from_ms
from app.domain import budgets, fields, identity, keys, teams
from app.pages.usage import reader_of
from app.reports import requests


class BudgetNow(msgspec.Struct, kw_only=True):
    """A limit, and what is currently spent and reserved."""

    limit: str
    period: str
    timezone: str
    spent: str | None
    reserved: str | None
    remaining: str | None
    resets_at: datetime | None


class OwnedKey(msgspec.Struct, kw_only=True):
    """Whose key it is, what is shown of its text, and what it may spend."""

    id: str
    username: str
    team_id: str | None
    prefix: str
    last4: str
    budget: BudgetNow | None


if TYPE_CHECKING:
    DeclaredKey = OwnedKey
    NewKeyBody = Body
    KeyBody = Body
else:
    DeclaredKey = with_fields(OwnedKey, keys.KeyFields)
    NewKeyBody = with_fields(Body, keys.KeyFields, absent=UNSET, required=("name",), nullable=("models", "routing"))
    KeyBody = with_fields(Body, keys.KeyFields, absent=UNSET, nullable=("models",))


class Key(DeclaredKey, kw_only=True):
    status: keys.Status
    expires_at: datetime | None
    paused_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Secret(msgspec.Struct, kw_only=True):
    """One secret of a key: the current one, or one that rotation has replaced and that works until `expires_at`."""

    id: str
    prefix: str
    last4: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class DetailedKey(Key, kw_only=True):
    """One key with its secrets, newest first."""

    secrets: list[Secret]


class NewlyMadeKey(Key, kw_only=True):
    """The answer when a key is created or rotated: the only time that its secret is shown."""

    key: str


class KeyPage(CursorPage, kw_only=True):
    data: list[Key]


class NewKey(NewKeyBody, kw_only=True):
    """Without `expires_at` a key gets the default lifetime (setting `keys.default_lifetime_days`); null means no end."""

    team_id: Annotated[str, Meta(max_length=36)] | None = None
    budget: BudgetBody | None = None
    expires_at: datetime | None | UnsetType = UNSET


class KeyChange(KeyBody, kw_only=True):
    """What you leave out stays unchanged; null removes a limit. A `paused` key is refused until you resume it."""

    budget: BudgetBody | None | UnsetType = UNSET
    expires_at: datetime | None | UnsetType = UNSET
    paused: bool | UnsetType = UNSET


class Rotation(Body, kw_only=True):
    """How long the old secret keeps working, in seconds."""

    overlap_s: int = 0


class Query(Cursored, kw_only=True):
    """`user` is for admins."""

    team_id: str | None = None
    user: str | None = None


def show_budget(standing: budgets.Standing) -> BudgetNow | None:
    if standing.limit_nano is None:
        return None
    return BudgetNow(
        limit=amount(standing.whole_nano) or "0",
        period=standing.period,
        timezone=standing.timezone,
        spent=amount(standing.spent_nano),
        reserved=amount(standing.reserved_nano),
        remaining=amount(standing.remaining_nano),
        resets_at=standing.resets_at,
    )


def _moment(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else from_ms(at_ms)


def show(key: keys.ApiKey) -> Key:
    return Key(**_fields(key))


def _fields(key: keys.ApiKey) -> dict[str, Any]:
    return _fields_of_all([key])[0]


def _fields_of_all(rows: Sequence[keys.ApiKey]) -> list[dict[str, Any]]:
    """The fields of each key. Budgets and last uses are read for all keys together."""
    standings = budgets.standings([("key", key.id) for key in rows])
    used_ms = requests.last_use(reader_of(me()), [key.id for key in rows])
    return [
        {
            "id": key.id,
            "username": key.person.username,
            "team_id": key.team_id,
            "prefix": key.prefix,
            "last4": key.last4,
            "budget": show_budget(standing),
            **fields.told(keys.KeyFields, key),
            "status": key.status,
            "expires_at": key.expires_at,
            "paused_at": key.paused_at,
            "revoked_at": key.revoked_at,
            "last_used_at": _moment(used_ms.get(key.id)),
            "created_at": key.created_at,
            "updated_at": key.updated_at,
        }
        for key, standing in zip(rows, standings, strict=True)
    ]


@route("GET", "/api/keys", query=Query, answer=KeyPage)
def index(query: Query) -> dict[str, Any]:
    """Lists your own keys and those of teams that you own, revoked keys included; admins see all."""
    rows = keys.visible_to(me())
    if query.team_id:
        rows = rows.where(keys.ApiKey.team_id == query.team_id)
    if query.user:
        person = identity.find(query.user)
        rows = rows.where(keys.ApiKey.person_id == (person.id if person else ""))
    result = page(rows, lambda key: key)
    return result | {"data": [Key(**values) for values in _fields_of_all(result["data"])]}


@route("POST", "/api/keys", answer=NewlyMadeKey, status=201, body=NewKey, writes=True)
def create(body: NewKey) -> NewlyMadeKey:
    """Creates a key of your own, or of a team that you are in. This answer is the only one with its secret."""
    team = None if body.team_id is None else teams.get_visible(me(), body.team_id)
    key, text = keys.create(
        me(),
        by=me(),
        team=team,
        budget=body.budget.to_changes() if body.budget else None,
        expires_at=keys.default_end() if body.expires_at is UNSET else utc(body.expires_at),
        **sent_members(body, "team_id", "budget", "expires_at"),
    )
    return NewlyMadeKey(key=text, **_fields(key))


@route("GET", "/api/keys/<id>", answer=DetailedKey)
def detail(id: str) -> DetailedKey:
    """Returns one key, with its secrets and when each was last used."""
    key = keys.get_visible(me(), id)
    used_ms = requests.use_of_secrets(reader_of(me()), key.id, {secret.id for secret in key.secrets})
    secrets = [
        Secret(
            id=secret.id,
            prefix=secret.prefix,
            last4=secret.last4,
            created_at=secret.created_at,
            expires_at=secret.expires_at,
            last_used_at=_moment(used_ms.get(secret.id)),
        )
        for secret in key.secrets
    ]
    return DetailedKey(secrets=secrets, **_fields(key))


@route("PATCH", "/api/keys/<id>", answer=Key, body=KeyChange, writes=True, versioned_by=("paused_at",))
def change(id: str, body: KeyChange) -> Key:
    """Changes a key's name, note, models or limits, pauses it, or resumes it."""
    changes = sent_members(body, "paused")
    if isinstance(body.budget, BudgetBody):
        changes["budget"] = body.budget.to_changes()
    if isinstance(body.expires_at, datetime):
        changes["expires_at"] = utc(body.expires_at)
    key = keys.update(keys.get_visible(me(), id, change=True), by=me(), **changes)
    if isinstance(body.paused, bool):
        (keys.pause if body.paused else keys.resume)(key, by=me())
    return show(key)


@route("DELETE", "/api/keys/<id>", status=204, writes=True)
def revoke(id: str) -> None:
    """Revokes a key permanently."""
    keys.revoke(keys.get_visible(me(), id, change=True), by=me())


@route("POST", "/api/keys/<id>/rotation", answer=NewlyMadeKey, status=201, body=Rotation, writes=True)
def rotate(id: str, body: Rotation) -> NewlyMadeKey:
    """Gives a key a new secret. The old one keeps working for `overlap_s` seconds."""
    key = keys.get_visible(me(), id, change=True)
    text = keys.rotate(key, by=me(), overlap_s=body.overlap_s)
    return NewlyMadeKey(key=text, **_fields(key))
