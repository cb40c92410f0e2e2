"""What is kept of the synchronisation with LiteLLM: its connection, policies, links with last states, plans and runs.

The master key is sealed like a provider's secrets. A connection of the settings wins over one that was entered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Select, String, Text, delete, select
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import from_ms, now
from app.domain import audit
from app.domain.errors import Conflict, DomainError, Invalid, NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.litellm.client import Breaker
from app.litellm.plan import DEFAULTS, ENTITIES, GONE, Entity, Link, Policy, Winner
from app.providers.addresses import AddressPolicy, AddressRefused, origin_of
from app.runtime.ids import new_id

PlanState = Literal["reading", "ready", "applying", "applied", "failed", "stale"]
StepState = Literal["waiting", "done", "failed", "skipped"]
RunState = Literal["running", "done", "failed"]
ONE = "litellm"  # the id of the only connection
PLACE = "litellm"  # that the master key is sealed for
LONGEST_URL = 500
MOST_INTERVAL_MINUTES = 7 * 24 * 60
MOST_TIMEOUT_S = 120


class SetElsewhere(Conflict):
    """The environment or a file decides this setting."""

    code = "set_elsewhere"


class SyncConnection(Base):
    """The LiteLLM that was entered, and how asking it fared. `failures` in a row; nothing is asked before `open_until_ms`."""

    __tablename__ = "sync_connection"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=ONE)
    url: Mapped[str | None] = mapped_column(String(LONGEST_URL))
    sealed: Mapped[str | None] = mapped_column(Text)
    hint: Mapped[str | None] = mapped_column(String(16))
    interval_minutes: Mapped[int] = mapped_column(default=0)
    timeout_s: Mapped[int] = mapped_column(default=10)
    failures: Mapped[int] = mapped_column(default=0)
    open_until_ms: Mapped[int] = mapped_column(default=0)
    since: Mapped[datetime] = mapped_column(default=now)  # since when it answers or fails
    reason: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class SyncPolicy(Base):
    """The policy of one kind of things, if it is not the default."""

    __tablename__ = "sync_policy"

    entity: Mapped[str] = mapped_column(String(16), primary_key=True)
    create: Mapped[str] = mapped_column(String(8))
    conflict: Mapped[str] = mapped_column(String(8))
    delete: Mapped[str] = mapped_column(String(8))


class SyncLink(Base):
    """Two things that are the same, with the fields of each side when they were last in step, and the decisions about fields
    in conflict that no run has carried out yet."""

    __tablename__ = "sync_link"
    __table_args__ = (
        Index(None, "entity", "portico_id", "litellm_id", unique=True),
        Index(None, "entity", "litellm_id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    entity: Mapped[str] = mapped_column(String(16))
    portico_id: Mapped[str] = mapped_column(String(80))
    litellm_id: Mapped[str] = mapped_column(String(600))
    portico: Mapped[dict[str, Any]] = mapped_column(default=dict)
    litellm: Mapped[dict[str, Any]] = mapped_column(default=dict)
    kept: Mapped[bool] = mapped_column(default=False)
    decided: Mapped[dict[str, Any]] = mapped_column(default=dict)
    synced_at: Mapped[datetime] = mapped_column(default=now)

    @property
    def value(self) -> Link:
        return Link(
            portico_id=self.portico_id,
            litellm_id=self.litellm_id,
            portico=self.portico,
            litellm=self.litellm,
            kept=self.kept,
        )


class SyncPlan(Base):
    """A plan. `by_id` asked for it, None for the schedule."""

    __tablename__ = "sync_plan"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(String(16), default="reading")
    entities: Mapped[list[str]] = mapped_column(default=list)
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str | None] = mapped_column(Text)
    by_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[datetime] = mapped_column(default=now)


class SyncStep(Base):
    """One step of a plan; `position` is its place in the order of applying. `decision` is a conflict's, by field."""

    __tablename__ = "sync_step"
    __table_args__ = (Index(None, "plan_id", "position"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    plan_id: Mapped[str] = mapped_column(ForeignKey("sync_plan.id", ondelete="CASCADE"))
    position: Mapped[int]
    entity: Mapped[str] = mapped_column(String(16))
    act: Mapped[str] = mapped_column(String(16))
    side: Mapped[str | None] = mapped_column(String(8))
    name: Mapped[str] = mapped_column(String(600))
    portico_id: Mapped[str | None] = mapped_column(String(80))
    litellm_id: Mapped[str | None] = mapped_column(String(600))
    fields: Mapped[list[Any]] = mapped_column(JSON, default=list)
    reason: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(8), default="waiting")
    error: Mapped[str | None] = mapped_column(Text)
    decision: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class SyncRun(Base):
    """The carrying out of a plan. One process at a time works on it, which holds the lease until `leased_until_ms`."""

    __tablename__ = "sync_run"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    plan_id: Mapped[str] = mapped_column(ForeignKey("sync_plan.id", ondelete="CASCADE"), unique=True)
    state: Mapped[str] = mapped_column(String(8), default="running")
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    errors: Mapped[list[str]] = mapped_column(default=list)
    by_id: Mapped[str | None] = mapped_column(String(36))
    leased_until_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


# --- the connection ---


class Connection(NamedTuple):
    """The connection in force. `is_set_elsewhere`: by the settings."""

    url: str
    master_key: str
    hint: str
    interval_minutes: int
    timeout_s: int
    is_set_elsewhere: bool


def connection() -> Connection | None:
    """The connection in force; None if there is none."""
    settings, row = current.config().litellm, db.session.get(SyncConnection, ONE)
    interval, timeout_s = (row.interval_minutes, row.timeout_s) if row else (0, 10)
    if settings.url and settings.master_key:
        return Connection(
            settings.url, settings.master_key, _hint(settings.master_key), interval, timeout_s, is_set_elsewhere=True
        )
    if row is None or row.url is None or row.sealed is None:
        return None
    key = current.sealer().open(row.sealed, PLACE).decode()
    return Connection(row.url, key, row.hint or "", interval, timeout_s, is_set_elsewhere=False)


def record() -> SyncConnection:
    """The row that tells how asking LiteLLM fares."""
    row = db.session.get(SyncConnection, ONE)
    if row is None:
        row = SyncConnection(id=ONE, failures=0, open_until_ms=0, interval_minutes=0, timeout_s=10, since=now())
        db.session.add(row)
        db.session.flush()
    return row


def connect(
    *, by: Person, url: str, master_key: str | None, interval_minutes: int = 0, timeout_s: int = 10
) -> Connection:
    """Keep a connection. Without a key, or with its mask, the stored key stays, for the same origin only. Raises `Invalid`, or
    `SetElsewhere`."""
    before = connection()
    if before and before.is_set_elsewhere:
        raise SetElsewhere("The connection is set by CONFIG_LITELLM_URL and CONFIG_LITELLM_MASTER_KEY.")
    url = url.strip().rstrip("/")
    if not 0 < len(url) <= LONGEST_URL:
        raise Invalid("Enter an address such as https://litellm.example.org.", "url")
    try:
        origin = origin_of(url)
        AddressPolicy.of(current.config()).check(origin.host, origin.port)
    except AddressRefused as refused:
        raise Invalid(f"{str(refused).capitalize()}.", "url") from None
    except ValueError:
        raise Invalid("Enter an address such as https://litellm.example.org.", "url") from None
    if not 0 <= interval_minutes <= MOST_INTERVAL_MINUTES:
        raise Invalid(f"Enter 0 to {MOST_INTERVAL_MINUTES} minutes.", "interval_minutes")
    if not 1 <= timeout_s <= MOST_TIMEOUT_S:
        raise Invalid(f"Enter 1 to {MOST_TIMEOUT_S} seconds.", "timeout_s")
    if not master_key or (before and master_key == before.hint):
        if before is None or _place(before.url) != _place(url):
            raise Invalid("Enter the master key of this LiteLLM.", "master_key")
        master_key = before.master_key
    if not master_key.isprintable() or not master_key.isascii() or len(master_key) > 1000:
        raise Invalid("A master key is up to 1,000 ASCII characters.", "master_key")
    row = record()
    row.url, row.hint, row.sealed = url, _hint(master_key), current.sealer().seal(master_key.encode(), PLACE)
    row.interval_minutes, row.timeout_s, row.updated_at = interval_minutes, timeout_s, now()
    row.failures, row.open_until_ms, row.since, row.reason = 0, 0, now(), None
    db.session.flush()
    after = {"url": url, "interval_minutes": interval_minutes, "timeout_s": timeout_s, "master_key": row.hint}
    audit.record(by, "sync.connect", "sync", ONE, name="LiteLLM", after=after)
    found = connection()
    assert found is not None
    return found


def seal_anew() -> None:
    """Seal the master key with the active encryption key. Raises `SealingError` if no kept key opens it."""
    row = db.session.get(SyncConnection, ONE)
    if row is not None and row.sealed is not None:
        row.sealed = current.sealer().seal(current.sealer().open(row.sealed, PLACE), PLACE)


def forget(*, by: Person) -> None:
    """Delete the connection with its links, plans and runs. Raises `SetElsewhere`."""
    found = connection()
    if found and found.is_set_elsewhere:
        raise SetElsewhere("The connection is set by CONFIG_LITELLM_URL and CONFIG_LITELLM_MASTER_KEY.")
    for kind in (SyncRun, SyncStep, SyncPlan, SyncLink, SyncConnection):
        db.session.execute(delete(kind))
    audit.record(by, "sync.disconnect", "sync", ONE, name="LiteLLM")


def keep_breaker(breaker: Breaker, reason: str | None) -> None:
    """Keep how asking LiteLLM fared."""
    row = record()
    if (row.reason is None) != (reason is None):
        row.since = now()
    row.failures, row.open_until_ms, row.reason = breaker.failures, breaker.open_until_ms, reason


def _hint(key: str) -> str:
    return f"••••{key[-4:]}" if len(key) >= 12 else "••••"


def _place(url: str) -> tuple[str, int, bool]:
    origin = origin_of(url)
    return origin.host, origin.port, origin.secure


# --- policies ---


def policies() -> dict[Entity, Policy]:
    """The policy of each kind of things."""
    kept = {row.entity: row for row in db.session.scalars(select(SyncPolicy))}
    return {entity: _policy(kept[entity]) if entity in kept else DEFAULTS[entity] for entity in ENTITIES}


def set_policies(changes: Mapping[Entity, Policy], *, by: Person) -> dict[Entity, Policy]:
    """Change the policies that are named. Raises `Invalid`."""
    before = policies()
    for entity, policy in changes.items():
        if entity == "models" and policy.create in ("push", "both"):
            raise Invalid(
                "Models are only pulled: to push one, LiteLLM would need a provider's secret.", "models.create"
            )
        row = db.session.get(SyncPolicy, entity) or SyncPolicy(entity=entity)
        row.create, row.conflict, row.delete = policy.create, policy.conflict, policy.delete
        db.session.add(row)
    db.session.flush()
    after = policies()
    differing = [entity for entity in ENTITIES if before[entity] != after[entity]]
    if differing:
        was, is_now = ({str(one): msgspec.to_builtins(of[one]) for one in differing} for of in (before, after))
        audit.record(by, "sync.policy", "sync", ONE, name="LiteLLM", before=was, after=is_now)
    return after


def _policy(row: SyncPolicy) -> Policy:
    return msgspec.convert({"create": row.create, "conflict": row.conflict, "delete": row.delete}, Policy)


# --- links ---


def links(entity: Entity) -> dict[tuple[str, str], SyncLink]:
    """The links of one kind of things, by their ids here and there."""
    found = db.session.scalars(select(SyncLink).where(SyncLink.entity == entity))
    return {(row.portico_id, row.litellm_id): row for row in found}


def keep_links(entity: Entity, kept: Iterable[Link], forgotten: Iterable[Link]) -> None:
    """Add or change these links, and delete those that are `forgotten`."""
    known = links(entity)
    for link in forgotten:
        row = known.pop((link.portico_id, link.litellm_id), None)
        if row is not None:
            db.session.delete(row)
    for link in kept:
        row = known.get((link.portico_id, link.litellm_id))
        if row is None:
            row = SyncLink(entity=entity, portico_id=link.portico_id, litellm_id=link.litellm_id, decided={})
            db.session.add(row)
        row.portico, row.litellm, row.kept, row.synced_at = link.portico, link.litellm, link.kept, now()
        decided = {name: winner for name, winner in row.decided.items() if not _is_agreed(link, name)}
        if decided != row.decided:
            row.decided = decided
    db.session.flush()


def keep_link(entity: Entity, link: Link, *, decided: Iterable[str] = ()) -> None:
    """Add or change one link; decisions about the fields `decided` have been carried out."""
    row = _row(entity, link)
    if row is None:
        row = SyncLink(entity=entity, portico_id=link.portico_id, litellm_id=link.litellm_id, decided={})
        db.session.add(row)
    row.portico, row.litellm, row.kept, row.synced_at = link.portico, link.litellm, link.kept, now()
    row.decided = {name: winner for name, winner in row.decided.items() if name not in set(decided)}
    db.session.flush()


def drop_link(entity: Entity, link: Link) -> None:
    """Delete one link."""
    row = _row(entity, link)
    if row is not None:
        db.session.delete(row)
        db.session.flush()


def _row(entity: Entity, link: Link) -> SyncLink | None:
    query = select(SyncLink).where(SyncLink.entity == entity, SyncLink.portico_id == link.portico_id)
    return db.session.scalar(query.where(SyncLink.litellm_id == link.litellm_id))


def _is_agreed(link: Link, name: str) -> bool:
    return name != GONE and name in link.portico and link.portico[name] == link.litellm.get(name)


# --- plans, steps and runs ---


def plans() -> Select[SyncPlan]:
    """A query of the plans, newest first."""
    return select(SyncPlan).order_by(SyncPlan.id.desc())


def plan(id: str) -> SyncPlan:
    """Raises `NotFound`."""
    found = db.session.get(SyncPlan, id)
    if found is None:
        raise NotFound("This plan does not exist.")
    return found


def steps(
    found: SyncPlan, *, entity: str | None = None, act: str | None = None, side: str | None = None
) -> Select[SyncStep]:
    """A query of a plan's steps in their order."""
    query = select(SyncStep).where(SyncStep.plan_id == found.id).order_by(SyncStep.position)
    for column, value in ((SyncStep.entity, entity), (SyncStep.act, act), (SyncStep.side, side)):
        if value:
            query = query.where(column == value)
    return query


def conflicts() -> Select[SyncStep]:
    """A query of the conflicts of the newest plan that was read, which nobody has decided."""
    newest = select(SyncPlan.id).where(SyncPlan.state.in_(("ready", "applying", "applied")))
    newest = newest.order_by(SyncPlan.id.desc()).limit(1)
    query = select(SyncStep).where(SyncStep.plan_id == newest.scalar_subquery(), SyncStep.act == "conflict")
    return query.where(SyncStep.decision.is_(None)).order_by(SyncStep.position)


def decide(id: str, fields: Mapping[str, Winner] | Winner, *, by: Person) -> SyncStep:
    """Decide a conflict, all of its fields or some; the next plan carries it out. Raises `NotFound`, `Invalid`, or `Conflict`."""
    step = db.session.get(SyncStep, id)
    if step is None or step.act != "conflict":
        raise NotFound("This conflict does not exist.")
    if step.portico_id is None or step.litellm_id is None:
        raise Conflict(step.reason or "This conflict can't be decided.")
    names = [change["name"] for change in step.fields]
    decision = dict.fromkeys(names, fields) if isinstance(fields, str) else dict(fields)
    for name, winner in decision.items():
        if name not in names:
            raise Invalid("This field is not in conflict.", f"fields.{name}")
        if winner not in get_args(Winner):
            raise Invalid("Choose litellm or portico.", f"fields.{name}")
    if not decision:
        raise Invalid("Choose a winner.", "winner")
    link = links(step.entity).get((step.portico_id, step.litellm_id))  # type: ignore[arg-type]
    if link is None:
        raise Conflict("One of the two is gone. Make a new plan.")
    link.decided = {**link.decided, **decision}
    step.decision = {**(step.decision or {}), **decision}
    db.session.flush()
    audit.record(by, "sync.decide", "sync", step.id, name=step.name, after=decision)
    return step


def runs() -> Select[SyncRun]:
    """A query of the runs, newest first."""
    return select(SyncRun).order_by(SyncRun.id.desc())


def run(id: str) -> SyncRun:
    """Raises `NotFound`."""
    found = db.session.get(SyncRun, id)
    if found is None:
        raise NotFound("This run does not exist.")
    return found


def last_run() -> SyncRun | None:
    return db.session.scalar(runs().limit(1))


class Standing(NamedTuple):
    """How it goes with LiteLLM."""

    state: Literal["off", "ok", "failing", "open"]
    since: datetime | None
    reason: str | None
    open_until: datetime | None


def standing() -> Standing:
    try:
        found = connection()
    except DomainError:
        found = None
    row = db.session.get(SyncConnection, ONE)
    if found is None:
        return Standing("off", None, None, None)
    if row is None:
        return Standing("ok", None, None, None)
    if Breaker(row.failures, row.open_until_ms).is_open:
        return Standing("open", row.since, row.reason, from_ms(row.open_until_ms))
    return Standing("failing" if row.reason else "ok", row.since, row.reason, None)
