"""People: who may sign in, in which role, with which scopes and limits.

Roles are user, admin and admin-readonly. Scopes narrow what a person's access tokens may do; what a person may
hold at most follows from the role. The last admin able to act cannot be removed, disabled or demoted.
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
from app.domain.errors import Conflict, Invalid, NotFound, Throttled, Unauthenticated, Unavailable
from app.domain.passwords import PasswordHash
from app.domain.person import SCOPES_OF, Person, PersonFields
from app.extensions import db, transaction

MOST_NAMED = 1000  # ids that are looked up one by one

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

Method = Literal["password", "token"]  # a sign-in's door: a browser's, or POST /token
SIGN_INS = Counter("portico_sign_ins", "Sign-ins by what became of them.", ["method", "outcome"])

log = logging.getLogger(__name__)

FAILURES_AN_ACCOUNT, FAILURES_AN_ADDRESS = 10, 100  # a minute
SEEN_EVERY = timedelta(minutes=15)


def find(username: str) -> Person | None:
    """The person of that name, whatever its case."""
    if not USERNAME.fullmatch(username):
        return None
    return db.session.scalar(select(Person).where(func.lower(Person.username) == username.lower()))


def named(username: str) -> Person:
    """The person of that name; raises `NotFound`."""
    person = find(username)
    if person is None:
        raise NotFound(f"There is no person named {username!r}.")
    return person


def called(text: str) -> Person:
    """The person of that name or, when it is nobody's name, of that address; raises `NotFound`."""
    text = text.strip()
    person = find(text)
    if person is None and names.is_email(text):
        same = list(db.session.scalars(select(Person).where(func.lower(Person.email) == text.lower()).limit(2)))
        person = same[0] if len(same) == 1 else None
    if person is None:
        raise NotFound(f"There is no person with the name or address {text!r}.", "username")
    return person


def by_id(id: str) -> Person | None:
    return db.session.get(Person, id)


def names_of(ids: Iterable[str]) -> dict[str, str]:
    """The usernames of these people, by id; those who are gone are left out."""
    wanted = set(ids)
    query = select(Person.id, Person.username)
    if len(wanted) <= MOST_NAMED:
        return dict(db.session.execute(query.where(Person.id.in_(wanted))).all())
    return {id: name for id, name in db.session.execute(query) if id in wanted}  # sooner than by so many parameters


def people(
    *, search: str | None = None, role: str | None = None, status: str | None = None, group: str | None = None
) -> Select[Person]:
    """Everybody by name, narrowed to those whose name or address contains `search`, to a role, to active or
    deactivated ones, and to the members of a group."""
    query = select(Person).order_by(func.lower(Person.username))
    if search:
        query = query.where(
            Person.username.icontains(search, autoescape=True) | Person.email.icontains(search, autoescape=True)
        )
    if role:
        query = query.where(Person.role == role)
    if status:
        query = query.where(Person.disabled.is_(status == "deactivated"))
    if group:  # the list is kept as JSON, whose text every database can search
        query = query.where(cast(Person.groups, String).contains(json.dumps(group), autoescape=True))
    return query


def groups() -> list[str]:
    """Every group that somebody is in, by name."""
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
    """A new person with the given `PersonFields`; no scopes means all that the role allows. Raises `Invalid` or, for a
    name that is taken in any case, `Conflict`."""
    if not USERNAME.fullmatch(username):
        raise Invalid("Use 1 to 64 letters, digits and . _ @ + -, beginning with a letter or digit.", "username")
    if find(username):
        raise Conflict(f"The name {username} is taken.", "username")
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
    """Changes what is given, also of the `PersonFields`; a new role without scopes comes with all that it allows. A new
    password by somebody else must be changed at the next sign-in, and ends the person's sessions and tokens. Raises
    `Invalid`, or `Conflict` for the last admin."""
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


def remove(person: Person, *, by: Person | None) -> None:
    """Takes a person out of the list of people; what is theirs goes by `app.workflows.offboarding`, which is to be called.

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
    """A password chosen by the person. Ends their other sessions, and the tokens that other sign-ins gave.

    The door has checked the current one by `is_password_of`.
    """
    person.password_hash = password
    person.must_change_password = False
    _sign_out_everywhere(person, keep_session, keep_family)
    audit.record(by, "person.change_password", "person", person.id, name=person.username)


def authenticate(username: str, password: str, address: str, method: Method = "password") -> Person:
    """Who this is; `method` is the door. Raises `Unauthenticated` in the same words and time for every reason,
    `Throttled` after too many failures of the account or the address, `Unavailable` when failures cannot be counted.
    Each refusal is written into the audit log; of those that are held up one a minute."""
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
            raise Unauthenticated("The username or the password is wrong.")
        # A burst of guesses may have been under way together: none counts beyond the limit, not even the right one.
        _check_throttle(username, address)
    except Throttled:
        SIGN_INS.labels(method, "throttled").inc()
        if _is_first_throttled(username, address):
            _refused_sign_in(username, method, "throttled")
        raise
    return person


def accept_sign_in(person: Person, method: Method = "password") -> None:
    """Notes in the current transaction that a person has signed in."""
    SIGN_INS.labels(method, "accepted").inc()
    seen(person)
    audit.record(
        person, "sign_in.accept", "person", person.id, name=person.username, facts={"method": method}
    )  # fmt: skip


def _refused_sign_in(username: str, method: Method, reason: str) -> None:
    """Writes a refusal down, in a transaction of its own. A name that is nobody's may be a password in the wrong field:
    of it only a mark is kept, by which it can be told again."""
    mark = _mark(username)

    def write() -> None:
        person = find(username)
        facts = {"method": method, "reason": reason} | ({} if person else {"mark": mark[:8]})
        id, name = (person.id, person.username) if person else ("unknown", None)
        audit.record(None, "sign_in.refuse", "person", id, name=name, facts=facts)

    transaction(write)
    log.warning("a sign-in was refused: %s by %s, account %s", reason, method, mark[:8])


def is_password_of(person: Person, password: str, address: str) -> bool:
    """Whether `password` is the person's present one; a wrong one counts as a failed sign-in (see `authenticate`)."""
    username = person.username
    _check_throttle(username, address)
    if passwords.matches(password, person.password_hash):
        return True
    _count_failure(username, address)
    SIGN_INS.labels("password", "refused").inc()
    _refused_sign_in(username, "password", "wrong_password")
    return False


def seen(person: Person, at: datetime | None = None) -> None:
    """Notes that the person was here, now or at that instant. Coarse, so that not every use is a write."""
    moment = at or now()
    if person.last_seen_at is None or moment - person.last_seen_at >= SEEN_EVERY:
        person.last_seen_at = moment


def note_seen(when: Mapping[str, datetime]) -> None:
    """The same for everybody of whom `sessions.take_seen` tells: a page that is read leaves its note in Redis only."""
    ids = sorted(when)
    for start in range(0, len(ids), MOST_NAMED):
        for person in db.session.scalars(select(Person).where(Person.id.in_(ids[start : start + MOST_NAMED]))):
            seen(person, when[person.id])


def first_admin(username: str, password: str | None) -> tuple[Person, str | None] | None:
    """The first admin on an empty database, and the password if one had to be made; None when people exist.

    A made password must be changed in the browser; one from the settings need not.
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
    """Twenty characters with about 119 bits of chance."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return "".join(random_source.choice(letters) for _ in range(20))


def _fill(person: Person, values: Mapping[str, Any], scopes: list[str] | None | msgspec.UnsetType) -> None:
    """Checks and sets what create and update share."""
    role = person.role
    fields.fill(PersonFields, person, values)
    allowed = SCOPES_OF[person.role]
    if scopes is None or (scopes is msgspec.UNSET and person.role != role):
        scopes = list(allowed)
    fields.fill(PersonFields, person, {"scopes": scopes})
    for scope in person.scopes:
        if scope not in allowed:
            raise Invalid(f"The role {person.role} cannot hold the scope {scope}.", "scopes")


def _must_not_be_the_last_admin(person: Person) -> None:
    # The rows are locked, so that two admins cannot remove each other at the same moment.
    admins = db.session.scalars(
        select(Person.id).where(Person.role == "admin", Person.disabled.is_(False), Person.id != person.id)
        .with_for_update()
    ).all()  # fmt: skip
    if not admins:
        raise Conflict(f"{person.username} is the last admin. Make somebody else an admin first.")


def _sign_out_everywhere(person: Person, keep_session: str | None = None, keep_family: str | None = None) -> None:
    tokens.revoke_families(person, but=keep_family)
    sessions.end_all(person.id, but=keep_session)


def _mark(username: str) -> str:
    """What stands for a name that was typed."""
    return hashlib.sha256(username.lower().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _is_first_throttled(username: str, address: str) -> bool:
    """Whether this account has not been held up before within a minute, and no other from this address: a flood leaves
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
        raise Unavailable("Signing in is not possible at the moment. Try again in a minute.") from None
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
        raise Unavailable("Signing in is not possible at the moment. Try again in a minute.") from None
