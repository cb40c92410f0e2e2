"""Access tokens for programs: short-lived ones with rotating refresh tokens, and long-lived ones that admins issue, or
people for themselves.

A token is a JWT (HS256) whose `jti` is a row here, so that a revoked one is refused at the next request. A refresh
token works once; a second use revokes its whole family, because one of the two users stole it.

Scopes are a closed list: `inference` calls /v1 as its person, `portal` is for the person's own objects, `admin` for the
management routes of admins; `chat`, `usage:read` and the like are parts of the first two. Each use checks a token's scopes
against those of its person and role.
"""

from __future__ import annotations

import hashlib
import secrets as random_source
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from sqlalchemy import ForeignKey, Index, Select, String, func, select, update
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app import current
from app.clock import now
from app.domain import audit, names
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.person import PARTS, TOKEN_SCOPES, Person, covered
from app.extensions import Base, db
from app.runtime.ids import new_id
from app.runtime.sealing import digest

ISSUER = "portico"
LONGEST_TOKEN = 4096
CALLS = frozenset(("inference", *PARTS["inference"]))  # a token with any of these calls /v1
MOST_LONG_LIVED = 50  # valid ones that a person can issue themselves


class AccessToken(Base):
    """An issued access token; its text is not stored. It has a family if it can be refreshed. `long_lived` ones have a name
    if their person chose one."""

    __tablename__ = "access_token"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    family_id: Mapped[str | None] = mapped_column(String(36), index=True)
    long_lived: Mapped[bool] = mapped_column(default=False)
    name: Mapped[str | None] = mapped_column(String(names.LONGEST))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    issued_by: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship("Person", lazy="joined")


class RefreshToken(Base):
    """One refresh token of a family, stored as its HMAC; `used_at` detects a second use."""

    __tablename__ = "refresh_token"
    __table_args__ = (Index(None, "expires_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    family_id: Mapped[str] = mapped_column(String(36), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship("Person", lazy="joined")


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that a program receives, shown only once. `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    scopes: tuple[str, ...]
    refresh_token: str | None = None
    token: AccessToken


class Bearer(msgspec.Struct, frozen=True, kw_only=True):
    """The owner and the current scopes of a valid access token."""

    token: AccessToken
    person: Person
    scopes: tuple[str, ...]


def grant(person: Person, *, scopes: Sequence[str] | None = None) -> Grant:
    """Issue a short-lived access token and a refresh token to an authenticated person.

    Raises `Invalid` for an unknown scope, `Forbidden` naming one that the person does not hold.
    """
    return _grant(person, _allowed(person, scopes), new_id())


def refresh(text: str) -> Grant | None:
    """Exchange a refresh token for new tokens; None if it is not valid.

    A token that was used before revokes its family: commit even if the result is None.
    """
    if len(text) > LONGEST_TOKEN:
        return None
    found = db.session.scalar(
        select(RefreshToken).where(RefreshToken.digest == _digest(text)).with_for_update(of=RefreshToken)
    )
    if found is None:
        return None
    if found.used_at is not None:
        _revoke_family(found.family_id)
        audit.record(None, "token.reuse", "person", found.person_id, name=found.person.username)
        return None
    if found.revoked_at or found.expires_at <= now() or found.person.disabled:
        return None
    found.used_at = now()
    family = select(AccessToken).where(AccessToken.family_id == found.family_id)
    before = db.session.scalar(family.order_by(AccessToken.id.desc()).limit(1))
    for token in db.session.scalars(_live().where(AccessToken.family_id == found.family_id)):
        _revoke(token)
    held = covered(found.person.held_scopes)
    scopes = tuple(scope for scope in found.scopes if scope in held)
    if before is not None and before.long_lived:
        grant = _grant(found.person, scopes, found.family_id, long_life=before.expires_at - before.created_at)
        grant.token.issued_by, grant.token.name = before.issued_by, before.name
        return grant
    return _grant(found.person, scopes, found.family_id)


def verify(text: str) -> Bearer | None:
    """Verify an access token; None if it is malformed, expired, revoked, or its person is deactivated."""
    if len(text) > LONGEST_TOKEN or text.count(".") != 2:
        return None
    try:
        claims = jwt.decode(text, _key(), algorithms=["HS256"]).claims
        jwt.JWTClaimsRegistry(
            int(now().timestamp()), iss={"essential": True, "value": ISSUER}, exp={"essential": True}
        ).validate(claims)
    except (JoseError, ValueError, TypeError, RecursionError):
        return None
    id = claims.get("jti")
    token = db.session.get(AccessToken, id) if isinstance(id, str) and "\0" not in id else None
    if token is None or token.revoked_at or token.expires_at <= now() or token.person.disabled:
        return None
    held = covered(token.person.held_scopes)
    return Bearer(token=token, person=token.person, scopes=tuple(scope for scope in token.scopes if scope in held))


def issue(
    person: Person,
    *,
    by: Person,
    scopes: Sequence[str] | None = None,
    name: str | None = None,
    days: int | None = None,
    refreshable: bool = False,
) -> Grant:
    """Issue a long-lived access token for a person, by an admin or by the person; it is valid for `days`, or as long as the
    settings allow. A `refreshable` one comes with a refresh token, for another one of the same life.

    Raises `Invalid` naming `name`, `days` or `scope`, `Forbidden`, or `Conflict` for a deactivated person and for one
    who has too many tokens and issues themselves another.
    """
    if person.disabled:
        raise Conflict(f"{person.username} is deactivated.")
    most = longest_days()
    if days is not None and not 1 <= days <= most:
        raise Invalid(f"Enter a number of days from 1 to {most}.", "days")
    name = None if name is None else names.checked(name)
    allowed = _allowed(person, scopes)
    held = live_of(person).where(AccessToken.long_lived.is_(True)).subquery()
    if by.id == person.id and (db.session.scalar(select(func.count()).select_from(held)) or 0) >= MOST_LONG_LIVED:
        raise Conflict(f"You have {MOST_LONG_LIVED} access tokens. Revoke one first.")
    longest = current.config().auth.long_lived_token_days
    life = timedelta(days=longest if days is None else min(days, longest))
    if refreshable:
        made = _grant(person, allowed, new_id(), long_life=life)
    else:
        text, token = _access_token(person, allowed, life, family_id=None, long_lived=True)
        made = Grant(access_token=text, expires_in=int(life.total_seconds()), scopes=allowed, token=token)
    token = made.token
    token.issued_by, token.name = by.username, name
    db.session.flush()
    audit.record(
        by, "token.issue", "token", token.id, name=person.username,
        after={"scopes": list(allowed)} | ({"name": name} if name else {}), on_behalf_of=person.username,
    )  # fmt: skip
    return made


def longest_days() -> int:
    """The whole days that a long-lived token can be valid, at least 1."""
    return max(1, int(current.config().auth.long_lived_token_days))


def get_own(person: Person, id: str) -> AccessToken:
    """The person's own valid access token with this id. Raises `NotFound`."""
    token = db.session.scalar(live_of(person).where(AccessToken.id == id))
    if token is None:
        raise NotFound("This access token does not exist, or is no longer valid.")
    return token


def revoke(token: AccessToken, *, by: Person) -> None:
    """Revoke one access token; of a sign-in also its refresh token."""
    if token.family_id is None:
        _revoke(token)
    else:
        _revoke_family(token.family_id)
    username = token.person.username
    audit.record(by, "token.revoke", "token", token.id, name=username, on_behalf_of=username)


def long_lived() -> Select[AccessToken]:
    """A query of the long-lived tokens, newest first, revoked ones included."""
    return select(AccessToken).where(AccessToken.long_lived.is_(True)).order_by(AccessToken.id.desc())


def live_of(person: Person) -> Select[AccessToken]:
    """A query of a person's valid access tokens, newest first."""
    return _live().where(AccessToken.person_id == person.id).order_by(AccessToken.id.desc())


def revoke_of(person: Person, *, by: Person) -> int:
    """Revoke all access and refresh tokens of a person; return the number of long-lived ones. Raises `NotFound` for none."""
    live = db.session.scalars(_live().where(AccessToken.person_id == person.id)).all()
    if not live:
        raise NotFound(f"{person.username} has no token to revoke.")
    revoke_all(person)
    audit.record(by, "token.revoke", "person", person.id, name=person.username, on_behalf_of=person.username)
    return sum(token.long_lived for token in live)


def revoke_all(person: Person) -> None:
    """Revoke all access and refresh tokens of a person, long-lived ones too."""
    for token in db.session.scalars(_live().where(AccessToken.person_id == person.id)):
        _revoke(token)
    revoke_families(person)


def revoke_families(person: Person, *, but: str | None = None) -> None:
    """Revoke the refresh tokens and access tokens of sign-ins by password, except those of the family `but`. Long-lived
    tokens stay, and so does what refreshes them."""
    for token in db.session.scalars(
        _live().where(AccessToken.person_id == person.id, AccessToken.long_lived.is_(False))
    ):
        if but is None or token.family_id != but:
            _revoke(token)
    lasting = select(AccessToken.family_id).where(
        AccessToken.person_id == person.id,
        AccessToken.long_lived.is_(True),
        AccessToken.revoked_at.is_(None),
        AccessToken.family_id.is_not(None),
    )
    ending = update(RefreshToken).where(
        RefreshToken.person_id == person.id,
        RefreshToken.revoked_at.is_(None),
        RefreshToken.family_id.not_in(lasting),
    )
    if but is not None:
        ending = ending.where(RefreshToken.family_id != but)
    db.session.execute(ending.values(revoked_at=now()))


def forget(person: Person) -> None:
    """Delete all tokens of a person who is being deleted."""
    for token in db.session.scalars(select(AccessToken).where(AccessToken.person_id == person.id)):
        mark_for_publication("caller", token.digest)
        db.session.delete(token)
    for refresh_token in db.session.scalars(select(RefreshToken).where(RefreshToken.person_id == person.id)):
        db.session.delete(refresh_token)


def purge(limit: int = 1000) -> int:
    """Delete tokens that ended at least a day ago; return how many. For the periodic job."""
    before = now() - timedelta(days=1)
    removed = 0
    for table in (AccessToken, RefreshToken):
        for row in db.session.scalars(select(table).where(table.expires_at < before).limit(limit)):
            db.session.delete(row)
            removed += 1
    return removed


def _grant(person: Person, scopes: tuple[str, ...], family_id: str, *, long_life: timedelta | None = None) -> Grant:
    """New tokens of a family, short-lived unless `long_life` says how long; then both last as long."""
    settings = current.config().auth
    life = long_life or timedelta(minutes=settings.access_token_minutes)
    text, token = _access_token(person, scopes, life, family_id=family_id, long_lived=long_life is not None)
    refresh_text = random_source.token_urlsafe(48)
    db.session.add(
        RefreshToken(
            person_id=person.id,
            family_id=family_id,
            digest=_digest(refresh_text),
            scopes=list(scopes),
            expires_at=now() + (long_life or timedelta(days=settings.refresh_token_days)),
        )
    )
    db.session.flush()
    return Grant(
        access_token=text,
        expires_in=int(life.total_seconds()),
        scopes=scopes,
        refresh_token=refresh_text,
        token=token,
    )


def _access_token(
    person: Person, scopes: tuple[str, ...], life: timedelta, *, family_id: str | None, long_lived: bool
) -> tuple[str, AccessToken]:
    id, start = new_id(), now()
    end = start + life
    claims = {
        "iss": ISSUER,
        "sub": person.id,
        "jti": id,
        "iat": int(start.timestamp()),
        "exp": int(end.timestamp()),
        "scope": " ".join(scopes),
    }
    text = jwt.encode({"alg": "HS256"}, claims, _key())
    token = AccessToken(
        id=id,
        person_id=person.id,
        person=person,
        family_id=family_id,
        long_lived=long_lived,
        digest=_digest(text),
        scopes=list(scopes),
        expires_at=end,
    )
    db.session.add(token)
    if not CALLS.isdisjoint(scopes):
        mark_for_publication("caller", token.digest)
    return text, token


def _allowed(person: Person, wanted: Sequence[str] | None) -> tuple[str, ...]:
    if not wanted:
        return person.held_scopes
    held = covered(person.held_scopes)
    for scope in wanted:
        if scope not in TOKEN_SCOPES:
            raise Invalid(f"The scope {scope[:40]!r} does not exist. Choose from {', '.join(TOKEN_SCOPES)}.", "scope")
        if scope not in held:
            raise Forbidden(f"{person.username} does not hold the scope {scope}.", "scope")
    return tuple(scope for scope in TOKEN_SCOPES if scope in wanted)


def _live() -> Select[AccessToken]:
    return select(AccessToken).where(AccessToken.revoked_at.is_(None), AccessToken.expires_at > now())


def _revoke(token: AccessToken) -> None:
    token.revoked_at = now()
    mark_for_publication("caller", token.digest)


def _revoke_family(family_id: str) -> None:
    for token in db.session.scalars(_live().where(AccessToken.family_id == family_id)):
        _revoke(token)
    db.session.execute(
        update(RefreshToken)
        .where(RefreshToken.family_id == family_id, RefreshToken.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def _digest(text: str) -> str:
    return digest(current.secrets().key_pepper, text)


def _key() -> OctKey:
    """The signing key: derived for tokens only, so that a token is never valid as a session cookie, or the reverse."""
    secret = current.secrets().session_secret.encode()
    return OctKey.import_key(hashlib.sha256(b"portico access token\0" + secret).digest())
