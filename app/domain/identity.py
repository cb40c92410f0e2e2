"""People: who can sign in, with which role, scopes and limits.

Roles are user, admin and admin-readonly. The role bounds a person's scopes; scopes bound what their access tokens can do.
The last active admin cannot be removed, deactivated or demoted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets as random_source
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from prometheus_client import Counter
from redis import RedisError
from sqlalchemy import Select, String, cast, func, select

from app import current, store
from app.clock import now
from app.domain import audit, fields, names, passwords, sessions, tokens
from app.domain.changes import mark_for_publication
from app.domain.errors import Conflict, Invalid, LocalSignInOff, NotFound, Throttled, Unauthenticated, Unavailable
from app.domain.passwords import PasswordHash
from app.domain.person import SCOPES_OF, Person, PersonFields
from app.extensions import db, transaction

MOST_NAMED = 1000  # more ids than this are looked up by one query over all people

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

Method = Literal[
    "password", "token", "oidc", "scim"
]  # in a browser, by POST /token, by the identity provider, or its SCIM
SIGN_INS = Counter("portico_sign_ins", "Sign-ins by result.", ["method", "outcome"])

log = logging.getLogger(__name__)

FAILURES_AN_ACCOUNT, FAILURES_AN_ADDRESS = 10, 100  # a minute
SEEN_EVERY = timedelta(minutes=15)


def find(username: str) -> Person | None:
    """The person with this username, in any case; None if there is none."""
    if not USERNAME.fullmatch(username):
        return None
    return db.session.scalar(select(Person).where(func.lower(Person.username) == username.lower()))


def named(username: str) -> Person:
    """The person with this username. Raises `NotFound`."""
    person = find(username)
    if person is None:
        raise NotFound(f"No person has the username {username!r}.")
    return person


def called(text: str) -> Person:
    """The person with this username or, if there is none, this e-mail address. Raises `NotFound`."""
    text = text.strip()
    person = find(text)
    if person is None and names.is_email(text):
        same = list(db.session.scalars(select(Person).where(func.lower(Person.email) == text.lower()).limit(2)))
        person = same[0] if len(same) == 1 else None
    if person is None:
        raise NotFound(f"No person has the username or e-mail address {text!r}.", "username")
    return person


def by_id(id: str) -> Person | None:
    return db.session.get(Person, id)


def names_of(ids: Iterable[str]) -> dict[str, str]:
    """The usernames of these people, by id; deleted people are left out."""
    wanted = set(ids)
    query = select(Person.id, Person.username)
    if len(wanted) <= MOST_NAMED:
        return dict(db.session.execute(query.where(Person.id.in_(wanted))).all())
    return {id: name for id, name in db.session.execute(query) if id in wanted}  # sooner than by so many parameters


def people(
    *, search: str | None = None, role: str | None = None, status: str | None = None, group: str | None = None
) -> Select[Person]:
    """A query of people by username, filtered by a part of the username or e-mail address, role, status ("active" or
    "deactivated") and group."""
    query = select(Person).order_by(func.lower(Person.username))
    if search:
        query = query.where(
            Person.username.icontains(search, autoescape=True) | Person.email.icontains(search, autoescape=True)
        )
    if role:
        query = query.where(Person.role == role)
    if status:
        query = query.where(Person.disabled.is_(status == "deactivated"))
    if group:  # the list is stored as JSON text, which every database can search
        query = query.where(cast(Person.groups, String).contains(json.dumps(group), autoescape=True))
    return query


def groups() -> list[str]:
    """The names of all groups that have a member, sorted."""
    kept = db.session.scalars(select(Person.groups).where(cast(Person.groups, String) != "[]"))
    return sorted({group for groups in kept for group in groups}, key=str.lower)


def create(
    *,
    by: Person | None,
    username: str,
    password: PasswordHash | None,
    scopes: list[str] | None = None,
    must_change_password: bool = False,
    **values: Any,
) -> Person:
    """Create a person with the given `PersonFields`; `scopes` None means all scopes of the role.

    Raises `Invalid`, or `Conflict` if the username is taken in any case.
    """
    _must_be_free(username)
    person = Person(username=username, password_hash=password, must_change_password=must_change_password)
    _fill(person, fields.usual(PersonFields) | values, scopes)
    db.session.add(person)
    db.session.flush()
    audit.record(by, "person.create", "person", person.id, name=username, after=person.summary())
    mark_for_publication("person", person.id)
    return person


def update(
    person: Person,
    *,
    by: Person | None,
    scopes: list[str] | None | msgspec.UnsetType = msgspec.UNSET,
    password: PasswordHash | None = None,
    **values: Any,
) -> Person:
    """Change the given values, `PersonFields` included; a new role without `scopes` gets all its scopes.

    A password that somebody else sets must be changed at the next sign-in, and ends the person's sessions and tokens.
    Raises `Invalid`, or `Conflict` for the last admin.
    """
    before = person.summary()
    was_acting = person.is_admin and not person.disabled
    _fill(person, values, scopes)
    if was_acting and (person.disabled or not person.is_admin):
        _must_not_be_the_last_admin(person)
    after = person.summary()
    if password is not None:
        person.password_hash = password
        person.must_change_password = by is None or by.id != person.id
        after["password"] = "changed"
        _sign_out_everywhere(person)
    if person.disabled:
        _sign_out_everywhere(person)
    audit.record(by, "person.update", "person", person.id, name=person.username, before=before, after=after)
    mark_for_publication("person", person.id)
    return person


def rename(person: Person, username: str, *, by: Person | None) -> None:
    """Give an account another username. Raises `Invalid`, or `Conflict` if it is taken in any case."""
    _must_be_free(username, person)
    before, person.username = person.username, username
    db.session.flush()
    audit.record(
        by, "person.update", "person", person.id, name=username, before={"username": before}, after={"username": username}
    )  # fmt: skip
    mark_for_publication("person", person.id)


def remove(person: Person, *, by: Person | None) -> None:
    """Delete the person's own row. Call `app.workflows.offboarding.delete` instead, which also deletes what they own.

    Raises `Conflict` for the last admin.
    """
    if person.is_admin and not person.disabled:
        _must_not_be_the_last_admin(person)
    mark_for_publication("person", person.id)
    audit.record(by, "person.delete", "person", person.id, name=person.username, before=person.summary(), after={})
    db.session.delete(person)
    db.session.flush()


def change_password(
    person: Person,
    *,
    by: Person,
    password: PasswordHash,
    keep_session: str | None = None,
    keep_family: str | None = None,
) -> None:
    """Set a password that the person chose. Ends their other sessions, and the tokens of other sign-ins.

    The caller has verified the current password with `is_password_of`.
    """
    person.password_hash = password
    person.must_change_password = False
    _sign_out_everywhere(person, keep_session, keep_family)
    audit.record(by, "person.change_password", "person", person.id, name=person.username)


def authenticate(username: str, password: str, address: str, method: Method = "password") -> Person:
    """Return the person with this username and password.

    Raises `Unauthenticated` with the same message and in the same time for every reason, `Throttled` after too many
    failures of the account or the address, `Unavailable` if failures cannot be counted. Each refusal is written to the
    audit log; of throttled ones one a minute. Raises `LocalSignInOff` where passwords are switched off.
    """
    if not current.config().auth.local:
        raise LocalSignInOff("Signing in with a password is switched off. Use single sign-on.")
    username = username.strip()
    try:
        _check_throttle(username, address)
        person = find(username)
        right = passwords.matches(password, person.password_hash if person else None)
        if person is None or not right or person.disabled:
            _count_failure(username, address)
            SIGN_INS.labels(method, "refused").inc()
            why = "unknown_person" if person is None else "disabled" if right else "wrong_password"
            _refused_sign_in(username, method, why)
            raise Unauthenticated("The username or password is wrong.")
        # Guesses can run in parallel: none beyond the limit succeeds, not even the right one.
        _check_throttle(username, address)
    except Throttled:
        SIGN_INS.labels(method, "throttled").inc()
        if _is_first_throttled(username, address):
            _refused_sign_in(username, method, "throttled")
        raise
    return person


def accept_sign_in(person: Person, method: Method = "password") -> None:
    """Record a sign-in in the current transaction."""
    SIGN_INS.labels(method, "accepted").inc()
    seen(person)
    audit.record(
        person, "sign_in.accept", "person", person.id, name=person.username, facts={"method": method}
    )  # fmt: skip


def _refused_sign_in(username: str, method: Method, reason: str) -> None:
    """Record a refusal in a transaction of its own. An unknown username can be a password in the wrong field: only a
    digest of it is stored, so that repeated attempts can be recognised."""
    mark = _mark(username)

    def write() -> None:
        person = find(username)
        facts = {"method": method, "reason": reason} | ({} if person else {"mark": mark[:8]})
        id, name = (person.id, person.username) if person else ("unknown", None)
        audit.record(None, "sign_in.refuse", "person", id, name=name, facts=facts)

    transaction(write)
    log.warning("a sign-in was refused: %s by %s, account %s", reason, method, mark[:8])


def refuse_sign_in(method: Method, reason: str, person: Person | None = None, **facts: str) -> None:
    """Record a sign-in that was refused for another reason than its password, in a transaction of its own."""
    id, name = (person.id, person.username) if person else ("unknown", None)
    SIGN_INS.labels(method, "refused").inc()
    said = {"method": method, "reason": reason} | facts
    transaction(lambda: audit.record(None, "sign_in.refuse", "person", id, name=name, facts=said))
    log.warning("a sign-in was refused: %s by %s", reason, method)


def is_password_of(person: Person, password: str, address: str) -> bool:
    """Whether `password` is the person's current one; a wrong one counts as a failed sign-in (see `authenticate`)."""
    username = person.username
    _check_throttle(username, address)
    if passwords.matches(password, person.password_hash):
        return True
    _count_failure(username, address)
    SIGN_INS.labels("password", "refused").inc()
    _refused_sign_in(username, "password", "wrong_password")
    return False


def seen(person: Person, at: datetime | None = None) -> None:
    """Record that the person was active, now or at `at`. It is rounded, so that not every use writes."""
    moment = at or now()
    if person.last_seen_at is None or moment - person.last_seen_at >= SEEN_EVERY:
        person.last_seen_at = moment


def note_seen(when: Mapping[str, datetime]) -> None:
    """The same for everyone in the result of `sessions.take_seen`: reading a page writes to Redis only."""
    ids = sorted(when)
    for start in range(0, len(ids), MOST_NAMED):
        for person in db.session.scalars(select(Person).where(Person.id.in_(ids[start : start + MOST_NAMED]))):
            seen(person, when[person.id])


def first_admin(username: str, password: str | None) -> tuple[Person, str | None] | None:
    """Create the first admin of an empty database; return them, and their password if it was generated. None if people exist.

    A generated password must be changed at the first sign-in; one from the settings need not.
    """
    if db.session.scalar(select(func.count()).select_from(Person)):
        return None
    made = None if password else random_password()
    person = create(
        by=None,
        username=username,
        password=passwords.hashed(password or made or ""),
        role="admin",
        must_change_password=password is None,
    )
    return person, made


def random_password() -> str:
    """A password of 20 characters with about 119 bits of entropy."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return "".join(random_source.choice(letters) for _ in range(20))


def _must_be_free(username: str, person: Person | None = None) -> None:
    if not USERNAME.fullmatch(username):
        raise Invalid("Use 1 to 64 letters, digits and . _ @ + -, starting with a letter or digit.", "username")
    taken = find(username)
    if taken is not None and taken is not person:
        raise Conflict(f"The name {username} is taken.", "username")


def _fill(person: Person, values: Mapping[str, Any], scopes: list[str] | None | msgspec.UnsetType) -> None:
    """Validate and set the fields that `create` and `update` share."""
    role = person.role
    fields.fill(PersonFields, person, values)
    allowed = SCOPES_OF[person.role]
    if scopes is None or (scopes is msgspec.UNSET and person.role != role):
        scopes = list(allowed)
    fields.fill(PersonFields, person, {"scopes": scopes})
    for scope in person.scopes:
        if scope not in allowed:
            raise Invalid(f"The role {person.role} cannot hold the scope {scope}.", "scopes")


def is_last_admin(person: Person) -> bool:
    """Whether nobody else is an active admin."""
    others = select(func.count()).where(Person.role == "admin", Person.disabled.is_(False), Person.id != person.id)
    return person.is_admin and not person.disabled and not db.session.scalar(others)


def _must_not_be_the_last_admin(person: Person) -> None:
    # The rows are locked, so that two admins cannot remove each other concurrently.
    admins = db.session.scalars(
        select(Person.id).where(Person.role == "admin", Person.disabled.is_(False), Person.id != person.id)
        .with_for_update()
    ).all()  # fmt: skip
    if not admins:
        raise Conflict(f"{person.username} is the last admin. Make another person an admin first.")


def _sign_out_everywhere(person: Person, keep_session: str | None = None, keep_family: str | None = None) -> None:
    tokens.revoke_families(person, but=keep_family)
    sessions.end_all(person.id, but=keep_session)


def _mark(username: str) -> str:
    """A digest that identifies an unknown username."""
    return hashlib.sha256(username.lower().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _is_first_throttled(username: str, address: str) -> bool:
    """Whether this is the first throttled attempt of this account and address within a minute: a flood of attempts writes
    one audit entry a minute."""
    try:
        redis = current.redis()
        return bool(
            redis.set(store.throttle("told-address", address), 1, nx=True, ex=60)
            and redis.set(store.throttle("told-account", _mark(username)), 1, nx=True, ex=60)
        )
    except RedisError:
        return False


def _throttles(username: str, address: str) -> tuple[tuple[str, int], tuple[str, int]]:
    return (
        (store.throttle("account", _mark(username)), FAILURES_AN_ACCOUNT),
        (store.throttle("address", address), FAILURES_AN_ADDRESS),
    )


def _check_throttle(username: str, address: str) -> None:
    limits = _throttles(username, address)
    try:
        with current.redis().pipeline(transaction=False) as pipe:
            for name, _ in limits:
                pipe.get(name)
                pipe.ttl(name)
            counts = pipe.execute()
    except RedisError:
        raise Unavailable("You can't sign in at the moment. Try again in a minute.") from None
    for position, (_, limit) in enumerate(limits):
        count, ttl = counts[2 * position], counts[2 * position + 1]
        if count is not None and int(count) >= limit:
            raise Throttled("Too many failed attempts. Wait a minute and try again.", max(1, int(ttl)))


def _count_failure(username: str, address: str) -> None:
    try:
        with current.redis().pipeline(transaction=True) as pipe:
            for name, _ in _throttles(username, address):
                pipe.incr(name)
                pipe.expire(name, 60, nx=True)
            pipe.execute()
    except RedisError:
        raise Unavailable("You can't sign in at the moment. Try again in a minute.") from None
