"""Publication: writes the directory, the callers and the limits to Redis after their changes are committed.

Each transaction records its changes (`app.domain.changes`), and they are published right after its commit. The records
stay until `catch_up` has published them once more: if Redis was away, or a process died between commit and publication,
Redis is behind by a second at most.

Publications are serialised by optimistic locking: each watches one counter, then reads SQL, and writes in one MULTI that
increments the counter. If another publication wrote meanwhile, it reads again, so an old state never replaces a newer one.
A complete rebuild writes the directory's version last: while it is missing, the gateway knows that Redis has lost data.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from functools import cache, partial
from typing import Any, cast, get_args

import msgspec
from redis import RedisError, WatchError
from redis.client import Pipeline
from sqlalchemy import delete, event, null, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import current, directory, store
from app.clock import now, now_ms, to_ms
from app.domain import credentials, fields
from app.domain.budgets import Budget
from app.domain.catalog import Model, ModelFields
from app.domain.changes import PENDING, Change, PendingChange
from app.domain.credentials import Defaults
from app.domain.keys import ApiKey, KeySecret
from app.domain.person import PARTS, Person
from app.domain.prompts import Prompt, PromptVersion
from app.domain.providers import Endpoint, Provider
from app.domain.search import one_of
from app.domain.settings import Setting
from app.domain.subscriptions import Subscription, usable
from app.domain.teams import Membership, Team
from app.domain.tokens import AccessToken
from app.extensions import after_commit, db, transaction
from app.metering import periods
from app.runtime.ids import new_id

log = logging.getLogger(__name__)

TURN = f"{store.TAG}:publication"
REBUILD = f"{store.TAG}:publication:rebuild:"
TURNS = 50
CHUNK = 200  # people per transaction
SCOPES = 5000  # scopes that belong to no person, per transaction
ENCODER = msgspec.json.Encoder()


def publish(changes: Collection[Change]) -> bool:
    """Publish the current state of these objects in one Redis transaction. Raises `RedisError`.

    Returns False, and writes nothing, if Redis has lost the directory: then call `publish_all`.
    """
    if not changes:
        return True

    return _in_turn(partial(_read, changes=changes), rebuilding=False)


def publish_all() -> None:
    """Publish everything, the directory's version last, and remove callers that no longer exist.

    For the start, and after Redis has lost data. Raises `RedisError`.
    """
    redis = current.redis()
    while True:
        marker = REBUILD + new_id()
        redis.set(marker, "1", ex=600)
        with _reading() as session:
            people = list(session.scalars(select(Person.id).order_by(Person.id)))
            pending = list(session.scalars(select(PendingChange.id)))
        for start in range(0, len(people), CHUNK):
            chunk: list[Change] = [("person", id) for id in people[start : start + CHUNK]]
            _in_turn(partial(_read, changes=chunk), rebuilding=True)
        _forget_unknown_callers()
        with _reading() as session:
            prompts: list[Change] = [("prompt", id) for id in session.scalars(select(Prompt.id))]
        stem = store.prompt("")
        stale = {("prompt", name[len(stem) :]) for name in redis.scan_iter(match=f"{_escaped(stem)}*", count=1000)}
        prompts += sorted(stale - set(prompts))
        for start in range(0, len(prompts), CHUNK):
            _in_turn(partial(_read, changes=prompts[start : start + CHUNK]), rebuilding=True)
        with (
            _reading() as session
        ):  # people's own scopes, and those of their keys and subscriptions, are already written
            others = select(Budget.scope_kind, Budget.scope_id).where(Budget.scope_kind.not_in(("user", "key")))
            scopes: list[Change] = [("scope", f"{kind}:{id}") for kind, id in session.execute(others)]
            scopes += [("scope", f"team:{id}") for id in session.scalars(select(Team.id))]
        for start in range(0, len(scopes), SCOPES):
            _in_turn(partial(_read, changes=scopes[start : start + SCOPES]), rebuilding=True)
        last: list[Change] = [("directory", ""), ("scope", "organisation:default")]
        if _in_turn(partial(_read, changes=last), rebuilding=True, marker=marker):
            break
    redis.delete(marker)
    _settle(pending)


def catch_up() -> int:
    """Publish pending changes, or everything if Redis has lost the directory; return how many pending changes it cleared.

    It costs one query and one Redis call if nothing is pending. Raises `RedisError` while Redis is away.
    """
    if not current.redis().exists(store.DIRECTORY_VERSION):
        publish_all()
        return 0
    with _reading() as session:
        rows = session.execute(
            select(PendingChange.id, PendingChange.kind, PendingChange.object_id).order_by(PendingChange.id).limit(500)
        ).all()
    if not rows or not publish({(kind, object_id) for _, kind, object_id in rows}):
        return 0
    _settle([id for id, _, _ in rows])
    return len(rows)


class Opening(msgspec.Struct, frozen=True):
    """The start value of a counter in nano-units, added once per `id`."""

    counter: str
    id: str
    nano: int


# In the transaction that publishes the period, so that no call is admitted between the two.
OPEN = """
if redis.call('HGET', KEYS[1], 'opening') ~= ARGV[1] then
  redis.call('HINCRBY', KEYS[1], 'spent', ARGV[2])
  redis.call('HSET', KEYS[1], 'opening', ARGV[1])
end
"""


class _Records(msgspec.Struct):
    """What to write; None removes a caller or a scope."""

    document: directory.Directory | None = None
    callers: dict[str, directory.CallerRecord | None] = {}
    scopes: dict[tuple[str, str], directory.Scope | None] = {}
    openings: list[Opening] = []
    prompts: dict[str, dict[Any, Any] | None] = {}


def _in_turn(read: Callable[[Session], _Records], *, rebuilding: bool, marker: str | None = None) -> bool:
    """Read SQL and write Redis without another publication in between; return False if Redis lost data meanwhile.

    Raises `RedisError`, also after `TURNS` attempts.
    """
    with current.redis().pipeline(transaction=True) as pipe:
        for _ in range(TURNS):
            try:
                pipe.watch(TURN, store.DIRECTORY_VERSION, *([marker] if marker else []))  # type: ignore[no-untyped-call]
                if not rebuilding and not pipe.exists(store.DIRECTORY_VERSION):
                    return False
                if marker and not pipe.exists(marker):
                    return False
                with _reading() as session:
                    records = read(session)
                pipe.multi()
                pipe.incr(TURN)
                _write(pipe, records)
                pipe.execute()
                return True
            except WatchError:
                continue
    raise RedisError(f"could not publish in {TURNS} attempts")


def _write(pipe: Pipeline, records: _Records) -> None:
    for digest, record in records.callers.items():
        name = store.caller(digest)
        if record is None:
            pipe.delete(name)
            continue
        pipe.set(name, ENCODER.encode(record))
        if record.expires_ms is not None:
            pipe.pexpireat(name, record.expires_ms)
    for (kind, id), scope in records.scopes.items():
        name = store.scope(kind, id)
        if scope is None:
            pipe.delete(name)
            continue
        fields = {
            "limit": scope.limit_nano,
            "spec": periods.spec(scope.period, scope.timezone),
            "rpm": scope.rpm,
            "tpm": scope.tpm,
            "parallel": scope.max_parallel,
        }
        # The levels of token buckets are in the same hash and stay.
        pipe.hset(name, mapping={field: value for field, value in fields.items() if value is not None})
        absent = [field for field, value in fields.items() if value is None]
        if absent:
            pipe.hdel(name, *absent)
    for id, texts in records.prompts.items():
        pipe.delete(store.prompt(id))
        if texts is not None:
            pipe.hset(store.prompt(id), mapping=texts)
    for opening in records.openings:
        pipe.eval(OPEN, 1, opening.counter, opening.id, opening.nano)
    if records.document is not None:
        pipe.set(store.DIRECTORY, ENCODER.encode(records.document))
        pipe.set(store.DIRECTORY_VERSION, records.document.version)


def _read(session: Session, changes: Iterable[Change]) -> _Records:
    """The current state of everything that `changes` name."""
    named: dict[str, set[str]] = {
        kind: set() for kind in ("directory", "person", "team", "key", "caller", "scope", "prompt")
    }
    for kind, id in changes:
        named.setdefault(kind, set()).add(id)
    records = _Records()
    scopes: set[tuple[str, str]] = set()
    for text in named["scope"]:
        kind, _, id = text.partition(":")
        scopes.add((kind, id))
    scopes.update(("key", id) for id in named["key"])
    scopes.update(("user", id) for id in named["person"])
    keys = set(named["key"])
    tokens: set[str] = set()
    if named["person"]:
        keys.update(session.scalars(select(ApiKey.id).where(one_of(ApiKey.person_id, named["person"]))))
        tokens.update(
            session.scalars(
                select(AccessToken.digest).where(
                    one_of(AccessToken.person_id, named["person"]), AccessToken.expires_at > now()
                )
            )
        )
        scopes.update(("key", id) for id in keys)
        active = select(Subscription.id).where(Subscription.status == "active")
        scopes.update(
            ("subscription", id)
            for id in session.scalars(active.where(one_of(Subscription.person_id, named["person"])))
        )
    if named["team"]:
        keys.update(session.scalars(select(ApiKey.id).where(one_of(ApiKey.team_id, named["team"]))))
        scopes.update(("team", id) for id in named["team"])
        active = select(Subscription.id).where(Subscription.status == "active")
        scopes.update(
            ("subscription", id) for id in session.scalars(active.where(one_of(Subscription.team_id, named["team"])))
        )
    for digest in named["caller"]:
        records.callers[digest] = None
    _callers(session, records, keys, tokens | named["caller"])
    _scopes(session, records, scopes)
    for id in named["prompt"]:
        records.prompts[id] = _prompt_record(session, id)
    if named["directory"]:
        records.document = _directory(session)
    return records


SECRETS = (  # only columns: a person can have hundreds of keys, and there can be many people
    select(
        KeySecret.digest,
        KeySecret.id.label("secret_id"),
        KeySecret.expires_at.label("secret_expires_at"),
        ApiKey.id,
        ApiKey.name,
        ApiKey.person_id,
        ApiKey.team_id,
        ApiKey.models,
        ApiKey.routing,
        ApiKey.scopes,
        ApiKey.tags,
        ApiKey.expires_at,
        ApiKey.paused_at,
        ApiKey.revoked_at,
        Team.name.label("team"),
        Team.tags.label("team_tags"),
    )
    .join(ApiKey, ApiKey.id == KeySecret.key_id)
    .outerjoin(Team, Team.id == ApiKey.team_id)
)


_Models = dict[str, tuple[str, datetime | None]]  # a model's name -> the subscription that pays for it, and its expiry


def _callers(session: Session, records: _Records, keys: set[str], digests: set[str]) -> None:
    """Add the caller records of the secrets of `keys` and of `digests`, which are of secrets or tokens."""
    asked = ((KeySecret.key_id, keys), (KeySecret.digest, digests))
    secrets = [row for column, these in asked if these for row in session.execute(SECRETS.where(one_of(column, these)))]
    of_tokens = select(AccessToken).where
    tokens = session.scalars(of_tokens(one_of(AccessToken.digest, digests))).all() if digests else []
    if not (secrets or tokens):
        return
    ids = {row.person_id for row in secrets} | {token.person_id for token in tokens}
    people = {person.id: person for person in session.scalars(select(Person).where(one_of(Person.id, ids)))}
    teams = {row.team_id for row in secrets if row.team_id}
    models: dict[str, _Models] = {id: {} for id in ids | teams}
    for person_id, team_id, model, subscription_id, ends in session.execute(usable(list(ids), list(teams))):
        models[team_id or person_id][model] = (subscription_id, ends)
    members: set[tuple[str, str]] = set()
    if teams:
        memberships = select(Membership.team_id, Membership.person_id).where(one_of(Membership.team_id, teams))
        members.update((team_id, person_id) for team_id, person_id in session.execute(memberships))
    own = credentials.defaults_of(
        session, {row.person_id for row in secrets if row.team_id is None} | {token.person_id for token in tokens}
    )
    for row in secrets:
        if row.team_id is not None and (row.team_id, row.person_id) not in members:
            records.callers[row.digest] = None  # a key of a team works only while its creator is a member
        else:
            mine = {} if row.team_id else own.get(row.person_id, {})
            records.callers[row.digest] = _key_record(
                row, people[row.person_id], models[row.team_id or row.person_id], mine
            )
    for token in tokens:
        records.callers[token.digest] = _token_record(token, models[token.person_id], own.get(token.person_id, {}))


def _key_record(row: Any, person: Person, models: _Models, own: Defaults) -> directory.CallerRecord | None:
    """The caller record of a row of `SECRETS`; None if it must not work."""
    ends = [moment for moment in (row.expires_at, row.secret_expires_at) if moment is not None]
    end = min(ends, default=None)
    if row.revoked_at or row.paused_at or (end is not None and end <= now()) or not _may_call(person):
        return None
    if row.models:
        models = {name: models[name] for name in row.models if name in models}
    return directory.CallerRecord(
        id=row.id,
        kind="key",
        name=row.name,
        person_id=row.person_id,
        username=person.username,
        models=_payers(models),
        ends_ms=_ends_ms(models),
        team_id=row.team_id,
        team=row.team,
        expires_ms=to_ms(end) if end else None,
        routing=row.routing,
        scopes=tuple(row.scopes),
        tags=_tags(row.tags, row.team_tags),
        secret_id=row.secret_id,
        credentials=own,
    )


def _tags(of_key: list[str], of_team: list[str] | None) -> tuple[str, ...] | None:
    """The tags that a key's requests may bear: those of its own list and of its team's, where they have one. None for any."""
    if of_key and of_team:
        return tuple(tag for tag in of_key if tag in of_team)
    return tuple(of_key or of_team or ()) or None


def _token_record(token: AccessToken, models: _Models, own: Defaults) -> directory.CallerRecord | None:
    scopes = PARTS["inference"] if "inference" in token.scopes else token.scopes
    parts = tuple(part for part in get_args(directory.KeyScope) if part in scopes)
    if token.revoked_at or token.expires_at <= now() or not parts or not _may_call(token.person):
        return None
    return directory.CallerRecord(
        id=token.id,
        kind="token",
        name="access token",
        person_id=token.person_id,
        username=token.person.username,
        models=_payers(models),
        ends_ms=_ends_ms(models),
        expires_ms=to_ms(token.expires_at),
        scopes=() if "inference" in token.scopes else parts,
        credentials=own,
    )


def _payers(models: _Models) -> dict[str, str]:
    return {name: subscription_id for name, (subscription_id, _) in models.items()}


def _ends_ms(models: _Models) -> dict[str, int]:
    return {name: to_ms(ends) for name, (_, ends) in models.items() if ends is not None}


def _may_call(person: Person) -> bool:
    """Whether this person can call /v1: without the scope their keys can't either."""
    return not person.disabled and "inference" in person.held_scopes


# The columns of rate limits by kind of scope: requests and tokens per minute, concurrent calls.
RATES = {
    "user": (Person.id, Person.rpm, Person.tpm, null()),
    "key": (ApiKey.id, ApiKey.rpm, ApiKey.tpm, ApiKey.max_parallel),
    "team": (Team.id, Team.rpm, Team.tpm, null()),
}


def _prompt_record(session: Session, id: str) -> dict[str, Any] | None:
    """The fields of `store.prompt`; None for a prompt that no longer exists."""
    prompt = session.get(Prompt, id)
    if prompt is None:
        return None
    owner = directory.PromptOwner(person_id=prompt.person_id, team_id=prompt.team_id)
    texts = {
        str(row.version): ENCODER.encode(
            directory.PromptText(version=row.version, template=row.template, model=row.model)
        )
        for row in session.scalars(select(PromptVersion).where(PromptVersion.prompt_id == id))
    }
    return {"owner": ENCODER.encode(owner), "latest": texts[str(prompt.version)], **texts}


def _scopes(session: Session, records: _Records, wanted: set[tuple[str, str]]) -> None:
    if not wanted:
        return
    ids: dict[str, set[str]] = {kind: set() for kind, _ in wanted}
    for kind, id in wanted:
        ids[kind].add(id)
    # Conditions on kind and id together, so that their index is used.
    of_scopes = select(Budget).where(Budget.scope_kind.in_(ids), one_of(Budget.scope_id, set().union(*ids.values())))
    budgets = {(row.scope_kind, row.scope_id): row for row in session.scalars(of_scopes)}
    rates: dict[tuple[str, str], tuple[int | None, int | None, int | None]] = {}
    for kind in RATES.keys() & ids.keys():
        for id, rpm, tpm, parallel in session.execute(select(*RATES[kind]).where(one_of(RATES[kind][0], ids[kind]))):
            rates[kind, id] = (rpm, tpm, parallel)
    present = set(rates) | set(budgets)
    for kind, id in wanted:
        gone = kind in RATES and (kind, id) not in present
        budget = budgets.get((kind, id))
        rpm, tpm, parallel = rates.get((kind, id), (None, None, None))
        if budget is not None and budget.opening_nano and budget.opening_id is not None:
            running = periods.window_of(budget.spec, now_ms()).name
            if running == budget.opening_period:
                counter = store.spent(kind, id, running)
                records.openings.append(Opening(counter, budget.opening_id, budget.opening_nano))
        records.scopes[kind, id] = None if gone else directory.Scope(
            kind=cast("Any", kind),
            id=id,
            limit_nano=budget.enforced_nano if budget else None,
            period=cast("Any", budget.period) if budget else "total",
            timezone=budget.timezone if budget else "UTC",
            rpm=rpm,
            tpm=tpm,
            max_parallel=parallel,
        )  # fmt: skip


def _directory(session: Session) -> directory.Directory:
    return directory.Directory(
        version=new_id(),
        models=tuple(model_record(row) for row in session.scalars(select(Model).order_by(Model.name))),
        providers=tuple(provider_record(row) for row in session.scalars(select(Provider).order_by(Provider.name))),
        endpoints=tuple(endpoint_record(row) for row in session.scalars(select(Endpoint).order_by(Endpoint.path))),
        settings={row.key: row.value for row in session.scalars(select(Setting).order_by(Setting.key))},
    )


def provider_record(row: Provider) -> directory.Provider:
    """A provider as it is published."""
    return directory.Provider(
        id=row.id,
        name=row.name,
        kind=row.kind,
        active=row.status == "active",
        settings=row.settings,
        sealed=row.sealed,
    )


def endpoint_record(row: Endpoint) -> directory.Endpoint:
    """An endpoint of /v1 as it is published."""
    return directory.Endpoint(path=row.path, active=row.active, providers=tuple(row.providers))


def _shared(row: Model) -> dict[str, Any]:
    """The values of a model that the gateway needs: its own record has a field of the same name."""
    values = {name: value for name, value in fields.told(ModelFields, row).items() if name in _RECORDED}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


_RECORDED = frozenset(directory.Model.__struct_fields__)


def model_record(row: Model) -> directory.Model:
    """A model as it is published, with the prices that hold now and later."""
    return directory.Model(
        id=row.id,
        created=int(row.created_at.timestamp()),
        **_shared(row),
        prices=_prices(row),
        deployments=tuple(
            directory.Deployment(
                id=item.id,
                provider_id=item.provider_id,
                upstream_model=item.upstream_model,
                priority=item.priority,
                weight=item.weight,
                settings=item.settings,
            )
            for item in row.deployments
        ),
    )


def _prices(row: Model) -> tuple[directory.DatedPrice, ...]:
    """The price that holds and those to come; one in which nothing is priced is no price from then on."""
    held = row.price
    shown = [price for price in row.prices if price is held or price.from_at > now()]
    return tuple(
        directory.DatedPrice(from_ms=to_ms(price.from_at), price=price.record())
        for price in sorted(shown, key=lambda price: (price.from_at, price.id))
    )


def _forget_unknown_callers() -> None:
    """Publish every caller in Redis that SQL may not have: a stale copy of Redis must not revive a key."""
    redis = current.redis()
    stem = store.caller("")
    found = {name[len(stem) :] for name in redis.scan_iter(match=f"{_escaped(stem)}*", count=1000)}
    with _reading() as session:
        known = set(session.scalars(select(KeySecret.digest))) | set(session.scalars(select(AccessToken.digest)))
    unknown: list[Change] = [("caller", digest) for digest in sorted(found - known)]
    for start in range(0, len(unknown), CHUNK):
        chunk = unknown[start : start + CHUNK]
        _in_turn(partial(_read, changes=chunk), rebuilding=True)


def _escaped(pattern: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in pattern)


def _settle(ids: list[str]) -> None:
    """Delete pending changes that have been published."""
    if ids:
        db.session.rollback()
        transaction(_delete_pending, ids)


def _delete_pending(ids: list[str]) -> None:
    for start in range(0, len(ids), CHUNK):
        db.session.execute(delete(PendingChange).where(PendingChange.id.in_(ids[start : start + CHUNK])))


def _reading() -> Session:
    """A session of its own: publication must see what is committed, not the changes of this request's session."""
    return Session(db.engine, autoflush=False)


@after_commit
def publish_pending() -> None:
    """Publish the pending changes of the transaction that was just committed."""
    changes: set[Change] = db.session.info.pop(PENDING, set())
    try:
        with _one_publisher():
            publish(changes)
    except (RedisError, SQLAlchemyError) as error:
        log.warning("publication is postponed: Redis or the database did not answer: %s", type(error).__name__)
    except Exception:  # the change is committed: the caller must not get an error
        log.exception("a committed change could not be published")


@event.listens_for(db.session, "after_rollback")
def _discard_pending(session: Session) -> None:
    session.info.pop(PENDING, None)


@cache
def _one_publisher() -> threading.Lock:
    """A lock that serialises publications of one process before they compete in Redis. It is created at first use, after
    gevent's patches."""
    return threading.Lock()
