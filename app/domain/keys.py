"""API keys: credentials that applications use to call /v1, with their models, limits and expiry.

Of a key's secret only a digest, its prefix and its last four characters are stored. A key can have two secrets for a
while: rotation creates a new one, and the old one stays valid until the overlap ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, ForeignKey, Index, Select, String, and_, func, or_, select, text, union
from sqlalchemy.orm import Mapped, joinedload, mapped_column, relationship

from app import current
from app.clock import LATEST, now
from app.directory import CallerRecord, KeyScope
from app.domain import audit, budgets, fields, names, notices, subscriptions, teams
from app.domain.catalog import Model, has_no_word, has_word
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import Person, Rate
from app.domain.search import among, contains
from app.domain.subscriptions import LIVE, Subscription
from app.domain.teams import Membership, Team
from app.extensions import Base, db
from app.gateway.endpoints import scope_for
from app.gateway.labels import LONGEST_TAG
from app.metering.scopes import chain_of
from app.runtime.ids import new_id
from app.runtime.key_text import new_key
from app.runtime.sealing import digest

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

SHOWN = 8  # characters of a secret's prefix that lists show: "sk-" and five more
LONGEST_NOTE = 500
LONGEST_OVERLAP_S = 30 * 24 * 3600
MOST_KEYS = 500  # live keys per person

SOON = timedelta(days=7)  # a key that expires within this time is "expiring"
OLD = timedelta(days=180)  # a secret older than this should be rotated

Status = Literal["active", "paused", "expired", "revoked"]
STATUSES: tuple[Status, ...] = get_args(Status)

UNREVOKED = text("revoked_at IS NULL")


class KeyFields(msgspec.Struct, kw_only=True):
    """A key's editable fields. Each has a column in `ApiKey`."""

    name: Annotated[
        str,
        Meta(
            max_length=names.LONGEST,
            title="Name",
            description=f"What it is for, such as the application that uses it. At most {names.LONGEST} characters.",
            extra={"needed": "Enter a name.", "read": names.checked},
        ),
    ]
    note: Annotated[
        Annotated[str, Meta(max_length=LONGEST_NOTE)] | None,
        Meta(
            title="Note",
            description=f"Where the key is stored, who to ask. At most {LONGEST_NOTE} characters; never a secret.",
            extra={"lines": 2},
        ),
    ] = None
    models: Annotated[list[str], Meta(title="Models", extra={"read": lambda models: list(dict.fromkeys(models))})] = []
    routing: Annotated[
        Literal["free", "fixed"],
        Meta(
            title="Provider routing",
            extra={
                "labels": {
                    "free": "Caller can choose: a request can name a provider and fallbacks among the model’s own",
                    "fixed": "Locked: requests that name a provider are refused",
                },
                "spread": True,
                "refusal": "Choose free or fixed.",
            },
        ),
    ] = "free"
    scopes: Annotated[
        list[KeyScope],
        Meta(
            title="May be used for",
            description="Tick nothing to allow everything, also what is added later.",
            extra={
                "labels": {
                    "chat": "Chat, completions, reranking and estimates",
                    "embeddings": "Embeddings",
                    "audio": "Audio",
                    "images": "Images",
                    "models:read": "Listing models",
                },
                "read": lambda scopes: list(dict.fromkeys(scopes)),
            },
        ),
    ] = []
    tags: Annotated[
        list[Annotated[str, Meta(max_length=LONGEST_TAG)]],
        Meta(
            max_length=teams.MOST_TAGS,
            title="Allowed tags",
            description=f"{teams.TAGS_HELP} A team’s own list holds as well.",
            extra={"read": teams.checked_tags},
        ),
    ] = []
    rpm: Annotated[Rate | None, Meta(title="Requests per minute")] = None
    tpm: Annotated[Rate | None, Meta(title="Tokens per minute")] = None
    max_parallel: Annotated[Rate | None, Meta(title="Concurrent requests")] = None


class ApiKey(Base):
    """A key. An empty list of models means all models that its owner is subscribed to; a missing limit means no limit."""

    __tablename__ = "api_key"
    __table_args__ = (  # PostgreSQL has more indexes, which SQLite does not support: see revision 0007
        Index(None, "last_used_ms", "id"),
        Index("ix_api_key_live", "person_id", sqlite_where=UNREVOKED, postgresql_where=UNREVOKED),
        *(
            Index(
                f"ix_api_key_{state}",
                "id",
                sqlite_where=text(f"{state}_at IS NOT NULL"),
                postgresql_where=text(f"{state}_at IS NOT NULL"),
            )
            for state in ("paused", "revoked")
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100), index=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    team_id: Mapped[str | None] = mapped_column(String(36), index=True)
    models: Mapped[list[str]] = mapped_column(default=list)
    routing: Mapped[str] = mapped_column(String(8), default="free")
    scopes: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    tags: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    rpm: Mapped[int | None]
    tpm: Mapped[int | None]
    max_parallel: Mapped[int | None]
    note: Mapped[str | None] = mapped_column(String(500))
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    paused_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    last_used_ms: Mapped[int] = mapped_column(default=0, server_default="0")  # for lists; see `app.ledger.list_order`

    person: Mapped[Person] = relationship("Person", lazy="joined")
    team: Mapped[Team | None] = relationship(
        "Team", primaryjoin="foreign(ApiKey.team_id) == Team.id", viewonly=True, lazy="joined"
    )
    secrets: Mapped[list[KeySecret]] = relationship(
        back_populates="key", cascade="all, delete-orphan", order_by="KeySecret.id.desc()", lazy="selectin"
    )

    @property
    def status(self) -> Status:
        if self.revoked_at:
            return "revoked"
        if self.expires_at and self.expires_at <= now():
            return "expired"
        return "paused" if self.paused_at else "active"

    @property
    def is_live(self) -> bool:
        """Whether it is neither revoked nor expired; it can be paused."""
        return self.status in ("active", "paused")

    @property
    def is_expiring(self) -> bool:
        """Whether it expires within `SOON`."""
        return self.is_live and self.expires_at is not None and self.expires_at <= now() + SOON

    @property
    def is_old(self) -> bool:
        """Whether its newest secret is older than `OLD`."""
        return self.is_live and self.secrets[0].created_at <= now() - OLD

    @property
    def prefix(self) -> str:
        return self.secrets[0].prefix

    @property
    def last4(self) -> str:
        return self.secrets[0].last4

    def summary(self) -> dict[str, Any]:
        return {
            **fields.told(KeyFields, self),
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
        }


class KeySecret(Base):
    """One secret of a key, stored as its HMAC; `expires_at` is set once rotation has replaced it."""

    __tablename__ = "key_secret"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16), index=True)
    last4: Mapped[str] = mapped_column(String(4), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]

    key: Mapped[ApiKey] = relationship(back_populates="secrets")

    @property
    def masked(self) -> str:
        """The masked form that lists and the history show."""
        return f"{self.prefix}…{self.last4}"

    @property
    def is_replaced(self) -> bool:
        """Whether rotation has replaced it; it can still be valid for a while."""
        return self.expires_at is not None

    @property
    def has_ended(self) -> bool:
        return self.expires_at is not None and self.expires_at <= now()


def visible_to(person: Person) -> Select[ApiKey]:
    """A query of the keys that a person can see, newest first: their own and those of teams they own; all for admins."""
    query = select(ApiKey).order_by(ApiKey.id.desc())
    if person.sees_everything:
        return query
    owned = select(Membership.team_id).where(Membership.person_id == person.id, Membership.role == "owner")
    return query.where(or_(ApiKey.person_id == person.id, among(ApiKey.team_id, owned)))


def owned_by(person: Person) -> Select[ApiKey]:
    """A query of a person's own keys, newest first, revoked ones included."""
    return select(ApiKey).where(ApiKey.person_id == person.id).order_by(ApiKey.id.desc())


def of_team(team: Team, *, by: Person | None = None) -> Select[ApiKey]:
    """A query of a team's keys, newest first; only those that `by` created if given."""
    query = select(ApiKey).where(ApiKey.team_id == team.id).order_by(ApiKey.id.desc())
    return query.where(ApiKey.person_id == by.id) if by else query


def all_() -> Select[ApiKey]:
    """A query of all keys, newest first: for admins."""
    return select(ApiKey).order_by(ApiKey.id.desc())


def search(
    person: Person, *, search: str | None = None, status: str | None = None, model: str | None = None
) -> Select[ApiKey]:
    """A query of a person's own keys, newest first, with the filters of `filtered`."""
    return filtered(owned_by(person), search=search, status=status, model=model)


def filtered(
    query: Select[ApiKey], *, search: str | None = None, status: str | None = None, model: str | None = None
) -> Select[ApiKey]:
    """Filter a query of keys: by a part of their name, note, owner's name or masked secret; by status; by a model that
    they can call."""
    if search:
        query = query.where(_is_found_by(search))
    if status:
        query = query.where(_has_status(status))
    if model:
        named = select(ApiKey.id).where(has_word(ApiKey.models, model))
        for_all = (paid.where(has_no_word(ApiKey.models)) for paid in _paid_for(model, "active"))
        query = query.where(among(ApiKey.id, union(named, *for_all)))
    return query


def _paid_for(model: str, *statuses: str) -> tuple[Select[str], Select[str]]:
    """Two queries of ids of keys whose calls to a model are paid by a subscription: the owner's own, and the team's."""
    found = select(Subscription.id).where(Subscription.model_name == model, Subscription.status.in_(statuses))
    people = found.with_only_columns(Subscription.person_id).where(Subscription.team_id.is_(None))
    joined = found.with_only_columns(Subscription.team_id).where(Subscription.team_id.is_not(None))
    return (
        select(ApiKey.id).where(ApiKey.team_id.is_(None), among(ApiKey.person_id, people)),
        select(ApiKey.id).where(among(ApiKey.team_id, joined)),
    )


def _is_found_by(search: str) -> ColumnElement[bool]:
    owners = select(Person.id).where(Person.username.icontains(search, autoescape=True))
    shown = KeySecret.prefix == search[:SHOWN] if search.startswith("sk-") else KeySecret.last4 == search
    found = union(
        select(ApiKey.id).where(contains(search, ApiKey.name, ApiKey.note)),
        select(ApiKey.id).where(among(ApiKey.person_id, owners)),
        select(KeySecret.key_id).where(shown),
    )
    return among(ApiKey.id, found)


def _has_status(status: str) -> ColumnElement[bool]:
    unrevoked = ApiKey.revoked_at.is_(None)
    over = ApiKey.expires_at <= now()
    running = or_(ApiKey.expires_at.is_(None), ~over)
    match status:
        case "active":
            return and_(unrevoked, running, ApiKey.paused_at.is_(None))
        case "paused":
            return and_(unrevoked, running, ApiKey.paused_at.is_not(None))
        case "live":  # active or paused
            return and_(unrevoked, running)
        case "expired":
            return and_(unrevoked, over)
        case _:
            return ApiKey.revoked_at.is_not(None)


def live() -> ColumnElement[bool]:
    """The condition that a key is neither revoked nor expired; it can be paused."""
    return _has_status("live")


def ending_within(span: timedelta) -> ColumnElement[bool]:
    """The condition that a key is live and expires within `span`."""
    return and_(_has_status("live"), ApiKey.expires_at <= now() + span)


def older_than(span: timedelta) -> ColumnElement[bool]:
    """The condition that a key is live and its newest secret is older than `span`."""
    return and_(_has_status("live"), ~ApiKey.secrets.any(KeySecret.created_at > now() - span))


def using(person: Person, model: str, team: Team | None = None) -> list[ApiKey]:
    """The active keys that can call a model: the person's personal ones or, with `team`, the team's. Keys for all models
    are included."""
    found = owned_by(person).where(ApiKey.team_id.is_(None)) if team is None else of_team(team)
    return [
        key for key in db.session.scalars(filtered(found, status="active")) if not key.models or model in key.models
    ]


def paid_by(found: Iterable[Subscription]) -> dict[str, list[ApiKey]]:
    """The active keys whose calls each subscription pays for, by subscription id: its team's, or the person's personal
    ones. It reads all of them at once."""
    asked = list(found)
    people = {one.person_id for one in asked if one.team_id is None}
    joined = {one.team_id for one in asked if one.team_id is not None}
    query = select(ApiKey).where(
        or_(and_(ApiKey.team_id.is_(None), ApiKey.person_id.in_(people)), ApiKey.team_id.in_(joined))
    )
    of_payer: dict[str, list[ApiKey]] = {}
    for key in db.session.scalars(filtered(query, status="active").order_by(ApiKey.id.desc())) if asked else ():
        of_payer.setdefault(key.team_id or key.person_id, []).append(key)
    return {
        one.id: [
            key
            for key in of_payer.get(one.team_id or one.person_id, ())
            if not key.models or one.model_name in key.models
        ]
        for one in asked
    }


def count_using(model: Model) -> int:
    """The number of active keys that can call a model: those that name it, and those for all models, whose owner or team has
    an active subscription to it."""
    may = _has_status("active"), or_(has_no_word(ApiKey.models), has_word(ApiKey.models, model.name))
    found = union(*(paid.where(*may) for paid in _paid_for(model.name, "active"))).subquery()
    query = select(func.count()).select_from(found)
    return db.session.scalar(query) or 0


def callable_models(key: ApiKey) -> list[Model]:
    """The models that a key can call now, by name: those that a subscription pays for, narrowed to the key's own list."""
    paid = subscriptions.paid_models(key.person_id, key.team_id)
    return [model for model in paid if not key.models or model.name in key.models]


def may_use(key: ApiKey, capability: str) -> bool:
    """Whether a key's scopes allow calls that need this capability of a model."""
    return not key.scopes or scope_for(capability) in key.scopes


def subscriptions_behind(key: ApiKey) -> Select[Subscription]:
    """A query of the live subscriptions that pay for a key's calls, by model: its team's, or its owner's own."""
    query = select(Subscription).where(Subscription.status.in_(LIVE)).order_by(Subscription.model_name, Subscription.id)
    return query.where(subscriptions.pays_for(key.person_id, key.team_id))


def paying_scopes(key: ApiKey) -> list[tuple[str, str, str]]:
    """(kind, id, name) of each scope whose budget must have room for a call with this key, innermost first: the key, the
    subscriptions to its models, the owner (or their cap in the team, and the team), and the organisation."""
    found = subscriptions_behind(key).with_only_columns(Subscription.id, Subscription.model_name)
    models = {id: model for id, model in db.session.execute(found) if not key.models or model in key.models}
    caller = CallerRecord(
        id=key.id,
        kind="key",
        name=key.name,
        person_id=key.person_id,
        username=key.person.username,
        team_id=key.team_id,
        team=key.team.name if key.team else None,
    )
    called = {"key": key.name, "member": key.person.username}
    chain = chain_of(caller, *models)
    return [(kind, id, models.get(id) or called.get(kind, shown)) for kind, id, shown in chain]


def get_visible(person: Person, id: str, *, change: bool = False) -> ApiKey:
    """The key with this id if the person can see it. Raises `NotFound`, or `Forbidden` with `change` for a read-only admin
    and another person's key."""
    asked = visible_to(person).where(ApiKey.id == id).options(joinedload(ApiKey.secrets))
    found = db.session.scalars(asked).unique().one_or_none()
    if found is None:
        raise NotFound("This key does not exist.")
    if change and not may_change(person, found):
        raise Forbidden("Changing other people's keys needs the role admin.")
    return found


def may_change(person: Person, key: ApiKey) -> bool:
    """Whether a person can change a key: its owner, owners of its team, and admins."""
    return key.person_id == person.id or person.is_admin or _owns_team_of(person, key)


def _owns_team_of(person: Person, key: ApiKey) -> bool:
    return key.team_id is not None and teams.role_in(person, key.team_id) == "owner"


def default_lifetime_days() -> int | None:
    """How long a new key lives unless its creator chooses, in days; None for no end."""
    settings = current.config().keys
    chosen = [days for days in (settings.default_lifetime_days, settings.max_lifetime_days) if days]
    return min(chosen, default=None)


def default_end() -> datetime | None:
    """When a key expires that is created now and whose creator says nothing of its end."""
    days = default_lifetime_days()
    return None if days is None else now() + timedelta(days=days)


def create(
    person: Person,
    *,
    by: Person,
    name: str,
    team: Team | None = None,
    budget: Mapping[str, Any] | None = None,
    expires_at: datetime | None = None,
    **values: Any,
) -> tuple[ApiKey, str]:
    """Create a key for a person, or for a team that they are in, with the given `KeyFields`.

    Returns the key and its secret, which is shown only now. `budget` has limit, period and timezone. Raises `Invalid`
    naming the field.
    """
    if team is not None and teams.role_in(person, team.id) is None:
        raise Invalid("Only members can create keys for a team.", "team_id")
    if db.session.query(ApiKey.id).filter_by(person_id=person.id, revoked_at=None).count() >= MOST_KEYS:
        raise Conflict(f"There are already {MOST_KEYS} keys. Revoke some first.")
    key = ApiKey(id=new_id(), person_id=person.id, person=person, team_id=team.id if team else None)
    _fill(key, {**fields.usual(KeyFields), **values, "name": name}, expires_at)
    text = _new_secret(key)
    db.session.add(key)
    db.session.flush()
    whose = {} if team is None else {"team": team.name}
    audit.record(by, "key.create", "key", key.id, name=key.name, after={**key.summary(), **whose})
    if budget is not None:
        budgets.set_budget("key", key.id, by=by, **budget)
    mark_for_publication("key", key.id)
    return key, text


def update(
    key: ApiKey,
    *,
    by: Person,
    budget: Mapping[str, Any] | None | Unset = UNSET,
    expires_at: datetime | None | Unset = UNSET,
    **values: Any,
) -> ApiKey:
    """Change the given values, `KeyFields` included; a budget of None removes it. Raises `Invalid`, or `Conflict` for a
    revoked key."""
    _must_not_be_revoked(key)
    before = key.summary()
    _fill(key, values, key.expires_at if expires_at is UNSET else expires_at)
    if key.summary() != before:
        key.updated_at = now()
        audit.record(by, "key.update", "key", key.id, name=key.name, before=before, after=key.summary())
        _notify_owner(key, by, "changed")
    if budget is None:
        budgets.clear("key", key.id, by=by)
    elif budget is not UNSET:
        budgets.set_budget("key", key.id, by=by, **budget)
    mark_for_publication("key", key.id)
    return key


def rotate(key: ApiKey, *, by: Person, overlap_s: int = 0) -> str:
    """Create a new secret for a key and return it; it is shown only now. The old one stays valid for `overlap_s` seconds.

    Raises `Invalid`, or `Conflict` for a key that is revoked or expired.
    """
    _must_not_be_revoked(key)
    if key.status == "expired":
        raise Conflict("This key has expired, so a new secret would not work. Extend the key first.")
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise Invalid(f"Enter 0 to {LONGEST_OVERLAP_S} seconds.", "overlap_s")
    end = now() + timedelta(seconds=overlap_s)
    for secret in key.secrets:
        if secret.expires_at is None or secret.expires_at > end:
            secret.expires_at = end
    text = _new_secret(key)
    key.updated_at = now()
    db.session.flush()
    audit.record(
        by, "key.rotate", "key", key.id, name=key.name, after={"overlap_s": overlap_s, "secret": key.secrets[0].masked}
    )
    _notify_owner(key, by, "rotated")
    mark_for_publication("key", key.id)
    return text


def end_secret(key: ApiKey, secret_id: str, *, by: Person) -> KeySecret:
    """End a replaced secret before its overlap ends. Repeating it changes nothing.

    Raises `NotFound`, or `Conflict` for the current secret.
    """
    found = next((secret for secret in key.secrets if secret.id == secret_id), None)
    if found is None:
        raise NotFound("This secret does not exist.")
    if not found.is_replaced:
        raise Conflict("This is the key's current secret. Rotate the key to replace it, or revoke the key.")
    if not found.has_ended:
        found.expires_at = key.updated_at = now()
        audit.record(by, "key.end_secret", "key", key.id, name=key.name, after={"secret": found.masked})
        mark_for_publication("key", key.id)
    return found


def pause(key: ApiKey, *, by: Person | None, reason: str | None = None) -> ApiKey:
    """Pause a key: /v1 refuses it within a second, until it is resumed. Repeating it changes nothing.

    A budget with the action `suspend` pauses its key; `by` is then None, and `reason` says why.
    """
    _must_not_be_revoked(key)
    if key.paused_at is None:
        key.paused_at = key.updated_at = now()
        audit.record(by, "key.pause", "key", key.id, name=key.name, reason=reason)
        _notify_owner(key, by, "paused", reason)
        mark_for_publication("key", key.id)
    return key


def resume(key: ApiKey, *, by: Person) -> ApiKey:
    """Resume a paused key. Repeating it changes nothing."""
    _must_not_be_revoked(key)
    if key.paused_at is not None:
        key.paused_at, key.updated_at = None, now()
        audit.record(by, "key.resume", "key", key.id, name=key.name)
        _notify_owner(key, by, "resumed")
        mark_for_publication("key", key.id)
    return key


def revoke(key: ApiKey, *, by: Person | None) -> ApiKey:
    """Revoke a key for good; /v1 refuses it within a second. Repeating it changes nothing."""
    if key.revoked_at is None:
        key.revoked_at = key.updated_at = now()
        audit.record(by, "key.revoke", "key", key.id, name=key.name)
        _notify_owner(key, by, "revoked")
        mark_for_publication("key", key.id)
    return key


def live_team_keys_of(person: Person) -> Select[ApiKey]:
    """A query of the keys that a person has in teams, revoked ones left out."""
    return owned_by(person).where(ApiKey.team_id.is_not(None), ApiKey.revoked_at.is_(None))


def hand_over(key: ApiKey, *, to: Person) -> None:
    """Give a team's key to another member of it; its secret stays."""
    before, key.person_id, key.person, key.updated_at = key.person.username, to.id, to, now()
    audit.record(
        None, "key.hand_over", "key", key.id, name=key.name, before={"owner": before}, after={"owner": to.username}
    )  # fmt: skip
    notices.notify(to, "key.handed_over", f"The key {key.name} is yours now", f"{before} left it.", page_of(key.id))
    mark_for_publication("key", key.id)


def history(key: ApiKey, *, limit: int = 50) -> list[audit.AuditEntry]:
    """The newest audit entries about a key and its budget, newest first."""
    return audit.history("key", key.id, limit=limit)


def page_of(key_id: str) -> str:
    """The path of a key's page, which notifications link to."""
    return f"/keys/{key_id}"


def forget(person: Person) -> None:
    """Delete all keys of a person who is being deleted."""
    for key in db.session.scalars(owned_by(person)):
        budgets.forget("key", key.id)
        for secret in key.secrets:
            mark_for_publication("caller", secret.digest)
        mark_for_publication("scope", f"key:{key.id}")
        db.session.delete(key)


def _new_secret(key: ApiKey) -> str:
    text = new_key()
    key.secrets.insert(
        0,
        KeySecret(
            id=new_id(),
            digest=digest(current.secrets().key_pepper, text),
            prefix=text[:SHOWN],
            last4=text[-4:],
        ),
    )
    return text


def _notify_owner(key: ApiKey, by: Person | None, done: str, reason: str | None = None) -> None:
    """Notify a key's owner of another person's action."""
    if by is None or by.id != key.person_id:
        notices.notify(
            key.person,
            f"key.{done}",
            f"Your key {key.name} was {done}",
            reason or f"By {by.username if by else 'Portico'}.",
            page_of(key.id),
        )


def _must_not_be_revoked(key: ApiKey) -> None:
    if key.revoked_at:
        raise Conflict("This key is revoked. Create a new one.")


def _fill(key: ApiKey, values: Mapping[str, Any], expires_at: datetime | None) -> None:
    is_new = key.created_at is None  # the column's default comes with the flush
    if expires_at is not None and expires_at != key.expires_at and not now() < expires_at < LATEST:
        raise Invalid("Enter a time in the future, before the year 3000.", "expires_at")
    most = current.config().keys.max_lifetime_days if is_new or expires_at != key.expires_at else 0
    if most and (expires_at is None or expires_at > now() + timedelta(days=most, minutes=1)):
        raise Invalid(f"Your organisation allows keys to live for at most {most} days.", "expires_at")
    before = key.models or ()
    with db.session.no_autoflush:
        fields.fill(KeyFields, key, values)
        if new := [model for model in key.models if model not in before]:
            _must_be_subscribed(key, new)
    key.expires_at = expires_at


def _must_be_subscribed(key: ApiKey, models: Sequence[str]) -> None:
    subscribed = {one.model.name for one in db.session.scalars(subscriptions_behind(key)) if one.model}
    for model in models:
        if model not in subscribed:
            raise Invalid(f"There is no subscription to {model}. Request access first.", "models")
