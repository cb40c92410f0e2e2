"""API keys: what an application presents to /v1, with its models, limits and end.

Of a key's text only a digest, its beginning and its last four characters are kept. One key may have two secrets for
a while: rotation makes a new one and lets the old one work on until the overlap is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import ForeignKey, Select, String, or_, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app import current, store
from app.domain import audit, budgets
from app.domain.catalog import Model
from app.domain.changes import touch
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.subscriptions import LIVE, Subscription
from app.extensions import Base, db, now
from app.gateway.key_text import new_key
from app.ids import new_id
from app.sealing import digest

if TYPE_CHECKING:
    from app.domain.identity import Person

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType

SHOWN = 8  # characters of a key's beginning that lists show: "sk-" and five more
LARGEST_RATE = 1_000_000_000
LONGEST_OVERLAP_S = 30 * 24 * 3600
MOST_KEYS = 500  # live ones a person


class ApiKey(Base):
    """A key. No models listed means all that its owner is subscribed to; absent limits mean none."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    team_id: Mapped[str | None] = mapped_column(String(36))
    models: Mapped[list[str]] = mapped_column(default=list)
    routing: Mapped[str] = mapped_column(String(8), default="free")
    rpm: Mapped[int | None]
    tpm: Mapped[int | None]
    max_parallel: Mapped[int | None]
    note: Mapped[str | None] = mapped_column(String(500))
    expires_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship("Person", lazy="joined")
    secrets: Mapped[list[KeySecret]] = relationship(
        back_populates="key", cascade="all, delete-orphan", order_by="KeySecret.id.desc()", lazy="selectin"
    )

    @property
    def status(self) -> str:
        """active, expired or revoked."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= now() else "active"

    @property
    def prefix(self) -> str:
        return self.secrets[0].prefix

    @property
    def last4(self) -> str:
        return self.secrets[0].last4

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "models": list(self.models),
            "routing": self.routing,
            "rpm": self.rpm,
            "tpm": self.tpm,
            "max_parallel": self.max_parallel,
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
        }


class KeySecret(Base):
    """One text of a key, as its HMAC; `expires_at` is set on one that rotation has replaced."""

    __tablename__ = "key_secret"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_key.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    last4: Mapped[str] = mapped_column(String(4))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]

    key: Mapped[ApiKey] = relationship(back_populates="secrets")


def reachable(person: Person) -> Select[ApiKey]:
    """The keys this person can see, newest first: their own; everybody's for admins."""
    found = select(ApiKey).order_by(ApiKey.id.desc())
    return found if person.sees_everything else found.where(ApiKey.person_id == person.id)


def of(person: Person) -> Select[ApiKey]:
    """A person's own keys, newest first, revoked ones too."""
    return select(ApiKey).where(ApiKey.person_id == person.id).order_by(ApiKey.id.desc())


def listed(person: Person, *, search: str | None = None, status: str | None = None) -> Select[ApiKey]:
    """A person's own keys, newest first, narrowed to a part of their name and to active, expired or revoked ones."""
    found = of(person)
    if search:
        found = found.where(ApiKey.name.icontains(search, autoescape=True))
    over = ApiKey.expires_at <= now()
    match status:
        case "active":
            found = found.where(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ~over))
        case "expired":
            found = found.where(ApiKey.revoked_at.is_(None), over)
        case "revoked":
            found = found.where(ApiKey.revoked_at.is_not(None))
    return found


def expiring(person: Person, *, within: timedelta) -> Select[ApiKey]:
    """A person's active keys whose time ends within a span, the soonest first."""
    found = listed(person, status="active").where(ApiKey.expires_at <= now() + within)
    return found.order_by(None).order_by(ApiKey.expires_at)


def using(person: Person, model: str) -> list[ApiKey]:
    """A person's active keys that may call a model: those that name it, and those for all models."""
    return [key for key in db.session.scalars(listed(person, status="active")) if not key.models or model in key.models]


def count_using(model: Model) -> int:
    """How many active keys of all people may call a model: those that name it, and those for all models of an owner
    with a live subscription to it."""
    owners = select(Subscription.person_id).where(Subscription.model_id == model.id, Subscription.status.in_(LIVE))
    query = select(ApiKey.models).where(
        ApiKey.person_id.in_(owners),
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()),
    )
    return sum(not models or model.name in models for models in db.session.scalars(query))


def paying_scopes(key: ApiKey) -> list[tuple[str, str, str]]:
    """Kind, id and name of each scope whose budget a call with this key must fit: the key's own, those of its owner's
    live subscriptions to its models, the owner's and the organisation's."""
    found = db.session.scalars(
        select(Subscription)
        .where(Subscription.person_id == key.person_id, Subscription.status.in_(LIVE))
        .order_by(Subscription.model_name)
    )
    return [
        ("key", key.id, key.name),
        *(("subscription", one.id, one.model_name) for one in found if not key.models or one.model_name in key.models),
        ("user", key.person_id, key.person.username),
        ("organisation", store.ORGANISATION, store.ORGANISATION),
    ]


def names_of(ids: Iterable[str]) -> dict[str, str]:
    """The names of these keys, by id."""
    query = select(ApiKey.id, ApiKey.name).where(ApiKey.id.in_(set(ids)))
    return dict(db.session.execute(query).all())


def reach(person: Person, id: str, *, change: bool = False) -> ApiKey:
    """The key of that id among those reachable; raises `NotFound`, or `Forbidden` when a read-only admin wants
    to change somebody else's."""
    found = db.session.scalar(reachable(person).where(ApiKey.id == id))
    if found is None:
        raise NotFound("There is no such key.")
    if change and found.person_id != person.id and not person.is_admin:
        raise Forbidden("Changing other people's keys needs the role admin.")
    return found


def create(
    person: Person,
    *,
    by: Person,
    name: str,
    models: Sequence[str] = (),
    budget: Mapping[str, Any] | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
    max_parallel: int | None = None,
    expires_at: datetime | None = None,
    routing: str = "free",
) -> tuple[ApiKey, str]:
    """A new key of a person, and its text, which is told this once. `budget` bears limit, period and timezone.

    Raises `Invalid` naming the field.
    """
    if db.session.query(ApiKey.id).filter_by(person_id=person.id, revoked_at=None).count() >= MOST_KEYS:
        raise Conflict(f"There are {MOST_KEYS} keys already. Revoke some first.")
    made = ApiKey(id=new_id(), person_id=person.id, person=person)
    _fill(
        made,
        name=name,
        models=models,
        rpm=rpm,
        tpm=tpm,
        max_parallel=max_parallel,
        expires_at=expires_at,
        routing=routing,
    )
    text = _new_secret(made)
    db.session.add(made)
    db.session.flush()
    audit.record(by, "key.create", "key", made.id, name=made.name, after=made.summary())
    if budget is not None:
        budgets.set_budget("key", made.id, by=by, **budget)
    touch("key", made.id)
    return made, text


def update(
    key: ApiKey,
    *,
    by: Person,
    name: str | Unset = UNSET,
    models: Sequence[str] | None | Unset = UNSET,
    budget: Mapping[str, Any] | None | Unset = UNSET,
    rpm: int | None | Unset = UNSET,
    tpm: int | None | Unset = UNSET,
    max_parallel: int | None | Unset = UNSET,
    expires_at: datetime | None | Unset = UNSET,
    routing: str | Unset = UNSET,
) -> ApiKey:
    """Changes what is given; a budget of None takes it away. Raises `Invalid`, or `Conflict` for a revoked key."""
    _must_not_be_revoked(key)
    before = key.summary()
    _fill(
        key,
        name=key.name if name is UNSET else name,
        models=key.models if models is UNSET else models or (),
        rpm=key.rpm if rpm is UNSET else rpm,
        tpm=key.tpm if tpm is UNSET else tpm,
        max_parallel=key.max_parallel if max_parallel is UNSET else max_parallel,
        expires_at=key.expires_at if expires_at is UNSET else expires_at,
        routing=key.routing if routing is UNSET else routing,
    )
    key.updated_at = now()
    audit.record(by, "key.update", "key", key.id, name=key.name, before=before, after=key.summary())
    if budget is None:
        budgets.clear("key", key.id, by=by)
    elif budget is not UNSET:
        budgets.set_budget("key", key.id, by=by, **budget)
    touch("key", key.id)
    return key


def rotate(key: ApiKey, *, by: Person, overlap_s: int = 0) -> str:
    """A new text for the same key, told this once; the old one works on for `overlap_s` seconds."""
    _must_not_be_revoked(key)
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise Invalid(f"Give 0 to {LONGEST_OVERLAP_S} seconds.", "overlap_s")
    end = now() + timedelta(seconds=overlap_s)
    for secret in key.secrets:
        if secret.expires_at is None or secret.expires_at > end:
            secret.expires_at = end
    text = _new_secret(key)
    key.updated_at = now()
    db.session.flush()
    audit.record(by, "key.rotate", "key", key.id, name=key.name, after={"overlap_s": overlap_s})
    touch("key", key.id)
    return text


def revoke(key: ApiKey, *, by: Person) -> ApiKey:
    """Ends a key for good, on /v1 within a second; doing it again changes nothing."""
    if key.revoked_at is None:
        key.revoked_at = key.updated_at = now()
        audit.record(by, "key.revoke", "key", key.id, name=key.name)
        touch("key", key.id)
    return key


def forget(person: Person) -> None:
    """Removes all keys of a person who is being deleted."""
    for key in db.session.scalars(of(person)):
        budgets.forget("key", key.id)
        for secret in key.secrets:
            touch("caller", secret.digest)
        touch("scope", f"key:{key.id}")
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


def _must_not_be_revoked(key: ApiKey) -> None:
    if key.revoked_at:
        raise Conflict("This key is revoked. Make a new one.")


def _fill(
    key: ApiKey,
    *,
    name: str,
    models: Sequence[str],
    rpm: int | None,
    tpm: int | None,
    max_parallel: int | None,
    expires_at: datetime | None,
    routing: str,
) -> None:
    name = name.strip()
    if not 1 <= len(name) <= 100:
        raise Invalid("Give a name of 1 to 100 characters.", "name")
    if routing not in ("free", "fixed"):
        raise Invalid("Choose free or fixed.", "routing")
    for field, value in (("rpm", rpm), ("tpm", tpm), ("max_parallel", max_parallel)):
        if value is not None and not 1 <= value <= LARGEST_RATE:
            raise Invalid(f"Give a number from 1 to {LARGEST_RATE}, or nothing for no limit.", field)
        setattr(key, field, value)
    if expires_at is not None and expires_at != key.expires_at and expires_at <= now():
        raise Invalid("Give an instant in the future.", "expires_at")
    wanted = list(dict.fromkeys(models))
    new = [model for model in wanted if model not in (key.models or ())]
    if new:
        with db.session.no_autoflush:
            _must_be_subscribed(key, new)
    key.name, key.models, key.routing, key.expires_at = name, wanted, routing, expires_at


def _must_be_subscribed(key: ApiKey, models: Sequence[str]) -> None:
    subscribed = set(
        db.session.scalars(
            select(Model.name)
            .join(Subscription, Subscription.model_id == Model.id)
            .where(Subscription.person_id == key.person_id, Subscription.status.in_(LIVE))
        )
    )
    for model in models:
        if model not in subscribed:
            raise Invalid(f"There is no subscription to {model}. Subscribe first.", "models")
