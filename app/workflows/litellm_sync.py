"""Plans and runs that keep Portico and a LiteLLM in step.

A plan reads both sides and writes down what follows. A run carries it out, step by step; what each step does is found anew
from both sides as they are then, so that a step which is done, or no longer fits, is skipped, and a run that was killed goes
on where it was.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import select, update

from app import current
from app.clock import now, now_ms
from app.domain import audit, identity, sync
from app.domain.errors import Conflict, DomainError
from app.domain.person import Person
from app.domain.sync import SyncPlan, SyncRun, SyncStep
from app.extensions import db, transaction
from app.litellm import shapes
from app.litellm.client import ATTEMPTS, Breaker, LiteLLM, LiteLLMFailed, Verdict
from app.litellm.plan import (
    ENTITIES,
    Act,
    Decisions,
    Entity,
    Link,
    Outcome,
    Side,
    Step,
    Thing,
    compare,
    count_lost,
    lost_too_many,
)
from app.litellm.plan import FEWEST_GUARDED as FEWEST
from app.litellm.shapes import Lists
from app.providers.addresses import AddressPolicy
from app.queue import enqueue_after_commit
from app.workflows import litellm_things as here
from app.workflows.litellm_things import Ids

FRESH_S = 15.0  # how old what was read may be when a step is carried out
AT_ONCE = 50  # steps of one unit of work
TURN_S = 120.0  # after which a job lets others have their turn
LEASE_MS = 180_000
MOST_ERRORS = 100  # that a run keeps
KEPT_PLANS = 50

log = structlog.get_logger("sync")


class Trial(NamedTuple):
    """What came of trying the connection."""

    result: Verdict
    version: str | None
    latency_ms: int
    detail: str


@contextmanager
def connected(*, attempts: int = ATTEMPTS) -> Iterator[LiteLLM]:
    """The LiteLLM of the connection. How asking it fares is kept. Raises `Conflict` without a connection."""
    found = sync.connection()
    if found is None:
        raise Conflict("LiteLLM is not connected.")
    row = db.session.get(sync.SyncConnection, sync.ONE)
    breaker = Breaker(row.failures, row.open_until_ms) if row else Breaker()
    before, was_failing = msgspec.structs.replace(breaker), bool(row and row.reason)
    db.session.rollback()  # it may be slow; no transaction stays open meanwhile
    policy = AddressPolicy.of(current.config())
    reason = None
    try:
        with LiteLLM(
            found.url, found.master_key, policy=policy, timeout_s=found.timeout_s, breaker=breaker, attempts=attempts
        ) as litellm:
            yield litellm
    except LiteLLMFailed as failed:
        reason = failed.message
        raise
    finally:
        if breaker != before or (reason is not None) != was_failing:
            transaction(sync.keep_breaker, breaker, reason)


def test() -> Trial:
    """Try the connection now. Raises `Conflict` if there is none."""
    started = time.monotonic()
    version, result, detail = None, "ok", "LiteLLM answers, and accepts the master key."
    try:
        with connected(attempts=1) as litellm:
            version = litellm.version()
            litellm.check_key()
    except LiteLLMFailed as failed:
        result, detail = failed.verdict, failed.message
    return Trial(result, version, int((time.monotonic() - started) * 1000), detail)  # type: ignore[arg-type]


# --- reading both sides ---


class Both(NamedTuple):
    """What follows for each kind of things, and whose id is whose."""

    outcomes: dict[Entity, Outcome]
    links: dict[Entity, dict[tuple[str, str], Link]]  # also those that are new
    groups: dict[str, list[str]]  # the ids of each model's deployments
    read_at: float

    def ids_here(self) -> Ids:
        """The ids here by those at LiteLLM."""
        return {entity: {b: a for a, b in pairs} for entity, pairs in self.links.items()}

    def ids_there(self) -> Ids:
        """The ids at LiteLLM by those here."""
        return {entity: {a: b for a, b in pairs} for entity, pairs in self.links.items()}  # noqa: C416


def read(litellm: LiteLLM, entities: Iterable[Entity]) -> Both:
    """Read both sides, and compare them. Raises `LiteLLMFailed`."""
    wanted = set(entities)
    lists = litellm.lists(wanted)
    return _compare(lists, wanted)


def _compare(lists: Lists, wanted: set[Entity]) -> Both:
    policies = sync.policies()
    needed = wanted | ({"users", "teams"} if wanted & {"members", "keys"} else set())
    rows = {entity: sync.links(entity) for entity in ENTITIES if entity in needed}
    outcomes: dict[Entity, Outcome] = {}
    links: dict[Entity, dict[tuple[str, str], Link]] = {entity: {} for entity in ENTITIES}
    named_here: dict[Entity, dict[str, str]] = {"users": {}, "teams": {}}
    named_there: dict[Entity, dict[str, str]] = {"users": {}, "teams": {}}
    sides: dict[Entity, tuple[list[Thing], list[Thing]]] = {}
    is_doubtful = False
    for entity in ENTITIES:
        if entity not in needed:
            continue
        ours, theirs = sides[entity] = _things(entity, lists, named_here, named_there)
        known = [row.value for row in rows[entity].values()]
        if entity in ("members", "keys") and is_doubtful:
            outcomes[entity] = Outcome(steps=(), links=(), forgotten=())  # whose they are is not known for sure
            continue
        decisions = _decisions(rows[entity])
        found = outcomes[entity] = compare(entity, ours, theirs, known, policies[entity], decisions)
        pairs = {(link.portico_id, link.litellm_id): link for link in known}
        for link in found.forgotten:
            pairs.pop((link.portico_id, link.litellm_id), None)
        pairs |= {(link.portico_id, link.litellm_id): link for link in found.links}
        links[entity] = pairs
        if entity in named_here:
            is_doubtful |= lost_too_many((one.id for one in ours), (one.id for one in theirs), known)
            named_here[entity], named_there[entity] = _names(ours, theirs, found, pairs)
    _doubt(sides, rows, outcomes, wanted, policies)
    groups = {
        thing_id: shapes.ids_of(row for row in lists.models if row.get("model_name") == name)
        for thing_id, name in ((thing.id, thing.name) for thing in shapes.models(lists.models))
    }
    return Both({entity: outcomes[entity] for entity in ENTITIES if entity in wanted}, links, groups, time.monotonic())


def _decisions(rows: Mapping[tuple[str, str], sync.SyncLink]) -> Decisions:
    return {(ours, theirs): row.decided for (ours, theirs), row in rows.items() if row.decided}


def _names(
    ours: Iterable[Thing], theirs: Iterable[Thing], found: Outcome, pairs: Iterable[tuple[str, str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """The names here of the people or teams that are on both sides, or will be, by the ids of each side."""
    here_by_id, there_by_id = {one.id: one.name for one in ours}, {one.id: one.name for one in theirs}
    both = [(a, b) for a, b in pairs if a in here_by_id and b in there_by_id]
    coming = [step for step in found.steps if step.act == "create"]
    names_here = {a: here_by_id[a] for a, _ in both} | {
        step.portico_id: step.name for step in coming if step.portico_id
    }
    names_there = {b: here_by_id[a] for a, b in both} | {
        step.litellm_id: step.name for step in coming if step.litellm_id
    }
    return names_here, names_there


def _things(
    entity: Entity, lists: Lists, ours: Mapping[Entity, dict[str, str]], theirs: Mapping[Entity, dict[str, str]]
) -> tuple[list[Thing], list[Thing]]:
    match entity:
        case "models":
            return here.models(), shapes.models(lists.models)
        case "users":
            return here.users(), shapes.users(lists.users)
        case "teams":
            return here.all_teams(), shapes.teams(lists.teams)
        case "members":
            return (
                here.members(ours["users"], ours["teams"]),
                shapes.members(lists.teams, lists.caps, theirs["users"], theirs["teams"]),
            )
        case "keys":
            return (
                here.all_keys(ours["users"], ours["teams"]),
                shapes.keys(lists.keys, theirs["users"], theirs["teams"]),
            )


def _doubt(
    sides: Mapping[Entity, tuple[list[Thing], list[Thing]]],
    rows: Mapping[Entity, Mapping[tuple[str, str], sync.SyncLink]],
    outcomes: dict[Entity, Outcome],
    wanted: set[Entity],
    policies: Mapping[Entity, Any],
) -> None:
    """If half of everything is gone, though of no kind alone there were enough to tell, no deletion is obeyed either."""
    counts = [
        count_lost((a.id for a in ours), (b.id for b in theirs), (row.value for row in rows[entity].values()))
        for entity, (ours, theirs) in sides.items()
    ]
    total, lost = sum(count for count, _ in counts), sum(lost for _, lost in counts)
    if total < FEWEST or 2 * lost < total:
        return
    for entity in wanted & sides.keys():
        ours, theirs = sides[entity]
        known = [row.value for row in rows[entity].values()]
        decisions = _decisions(rows[entity])
        outcomes[entity] = compare(entity, ours, theirs, known, policies[entity], decisions, is_doubtful=True)


# --- plans ---


def plan(entities: Sequence[Entity] | None, *, by: Person | None) -> SyncPlan:
    """Begin a plan; a job reads both sides. Raises `Conflict` without a connection."""
    if sync.connection() is None:
        raise Conflict("LiteLLM is not connected.")
    wanted = [entity for entity in ENTITIES if entities is None or entity in entities]
    found = SyncPlan(entities=wanted, counts=_counts(()), by_id=by.id if by else None, state="reading")
    db.session.add(found)
    db.session.flush()
    enqueue_after_commit("app.jobs.litellm.make_plan", found.id)
    return found


def make_plan(id: str) -> None:
    """Read both sides, and write down the steps. What both sides agree on is kept as last in step."""
    found = db.session.get(SyncPlan, id)
    if found is None or found.state != "reading":
        return
    wanted = {entity for entity in ENTITIES if entity in found.entities}
    try:
        with connected() as litellm:
            lists = litellm.lists(wanted)
    except (LiteLLMFailed, DomainError) as error:
        transaction(_fail_plan, id, error.message)
        return
    transaction(_write_plan, id, lists, wanted)


def _fail_plan(id: str, message: str) -> None:
    found = sync.plan(id)
    found.state, found.error = "failed", message
    log.warning("a plan failed: %s", message)


def _write_plan(id: str, lists: Lists, wanted: set[Entity]) -> None:
    found = sync.plan(id)
    both = _compare(lists, wanted)
    _keep(both)
    db.session.execute(update(SyncPlan).where(SyncPlan.state == "ready").values(state="stale"))
    steps = [step for outcome in both.outcomes.values() for step in outcome.steps]
    for position, step in enumerate(_in_order(steps)):
        db.session.add(
            SyncStep(
                plan_id=id,
                position=position,
                entity=step.entity,
                act=step.act,
                side=step.side,
                name=step.name,
                portico_id=step.portico_id,
                litellm_id=step.litellm_id,
                fields=msgspec.to_builtins(step.changes),
                reason=step.reason,
                state="waiting",
            )
        )
    found.state, found.counts = "ready", _counts(steps)
    for old in db.session.scalars(sync.plans().where(SyncPlan.state.in_(("stale", "failed"))).offset(KEPT_PLANS)):
        if db.session.scalar(select(SyncRun.id).where(SyncRun.plan_id == old.id)) is None:
            db.session.delete(old)


def _in_order(steps: Iterable[Step]) -> list[Step]:
    """Creations and changes from models to keys, then deletions from keys to models."""
    place = {entity: number for number, entity in enumerate(ENTITIES)}
    return sorted(
        steps,
        key=lambda step: (
            step.act == "delete",
            -place[step.entity] if step.act == "delete" else place[step.entity],
        ),
    )


def _counts(steps: Iterable[Step | SyncStep]) -> dict[str, int]:
    return {"create": 0, "update": 0, "delete": 0, "conflict": 0} | Counter(step.act for step in steps)


def _keep(both: Both) -> None:
    for entity, outcome in both.outcomes.items():
        sync.keep_links(entity, outcome.links, outcome.forgotten)


# --- runs ---


def apply(found: SyncPlan, *, by: Person | None) -> SyncRun:
    """Begin to carry out a plan; the same run again if it has begun. Raises `Conflict` for a plan that can't be applied."""
    db.session.refresh(found, with_for_update=True)
    run = db.session.scalar(select(SyncRun).where(SyncRun.plan_id == found.id))
    if run is not None:
        return run
    if found.state != "ready":
        raise Conflict(f"This plan is {found.state}. Make a new one.")
    waiting = select(SyncStep).where(SyncStep.plan_id == found.id, SyncStep.act != "conflict")
    run = SyncRun(
        plan_id=found.id,
        total=len(db.session.scalars(waiting).all()),
        done=0,
        counts={},
        errors=[],
        by_id=by.id if by else None,
        state="running",
    )
    db.session.add(run)
    found.state = "applying"
    db.session.flush()
    audit.record(by, "sync.apply", "sync", run.id, name="LiteLLM", after=dict(found.counts))
    enqueue_after_commit("app.jobs.litellm.go_on", run.id)
    return run


def resume(run: SyncRun, *, by: Person | None) -> SyncRun:
    """Go on with a run: steps that failed are tried again. A run that is done stays as it is."""
    if run.state == "failed":
        db.session.execute(
            update(SyncStep)
            .where(SyncStep.plan_id == run.plan_id, SyncStep.state == "failed")
            .values(state="waiting", error=None)
        )
        run.state, run.errors, run.finished_at = "running", [], None
        sync.plan(run.plan_id).state = "applying"
        _count(run)
        run.leased_until_ms = 0
        audit.record(by, "sync.resume", "sync", run.id, name="LiteLLM")
    if run.state == "running":
        enqueue_after_commit("app.jobs.litellm.go_on", run.id)
    return run


def go_on(id: str) -> None:
    """Carry out the steps that wait, for at most `TURN_S`; then another job goes on. One process at a time."""
    if not transaction(_lease, id):
        return
    ends_at = time.monotonic() + TURN_S
    try:
        with connected() as litellm:
            both: Both | None = None
            while time.monotonic() < ends_at:
                entity, ids = _next(id)
                if entity is None:
                    transaction(_finish, id, None)
                    return
                if both is None or entity not in both.outcomes or time.monotonic() - both.read_at > FRESH_S:
                    both = read(litellm, (entity,))
                    db.session.rollback()
                    transaction(_keep, both)
                _carry_out(id, ids, both, litellm)
    except (LiteLLMFailed, DomainError) as error:
        transaction(_finish, id, error.message)
        return
    transaction(_hand_on, id)


def _lease(id: str) -> bool:
    run = sync.run(id)
    if run.state != "running" or run.leased_until_ms > now_ms():
        return False
    run.leased_until_ms = now_ms() + LEASE_MS
    return True


def _hand_on(id: str) -> None:
    sync.run(id).leased_until_ms = 0
    enqueue_after_commit("app.jobs.litellm.go_on", id)


def _next(id: str) -> tuple[Entity | None, list[str]]:
    """The kind and the ids of the steps that come next; None when none waits."""
    plan_id = sync.run(id).plan_id
    waiting = select(SyncStep).where(
        SyncStep.plan_id == plan_id, SyncStep.state == "waiting", SyncStep.act != "conflict"
    )
    rows = db.session.scalars(waiting.order_by(SyncStep.position).limit(AT_ONCE)).all()
    first = next(iter(rows), None)
    if first is None:
        return None, []
    return first.entity, [  # type: ignore[return-value]
        row.id for row in rows if (row.entity, row.side, row.act) == (first.entity, first.side, first.act)
    ]


Place = tuple[Act, Side | None, str | None, str | None]


def _carry_out(id: str, ids: Sequence[str], both: Both, litellm: LiteLLM) -> None:
    rows = list(db.session.scalars(select(SyncStep).where(SyncStep.id.in_(ids)).order_by(SyncStep.position)))
    entity: Entity = rows[0].entity  # type: ignore[assignment]
    fresh: dict[Place, Step] = {
        (step.act, step.side, step.portico_id, step.litellm_id): step for step in both.outcomes[entity].steps
    }
    todo = [(row.id, fresh.get((row.act, row.side, row.portico_id, row.litellm_id))) for row in rows]  # type: ignore[arg-type]
    is_here = rows[0].side == "portico"
    db.session.rollback()
    if is_here:
        transaction(_write_here, id, todo, both)
        return
    for row_id, step in todo:
        done = _try_there(step, both, litellm) if step else None
        transaction(_note, id, row_id, step, done, both)


def _write_here(id: str, todo: Sequence[tuple[str, Step | None]], both: Both) -> None:
    """Several steps in one unit of work, each with its link: all of a step happens, or nothing."""
    run = sync.run(id)
    by = _actor(run)
    ids = both.ids_here()
    with audit.acting(by.username):
        for row_id, step in todo:
            if step is None:
                _set(row_id, "skipped")
                continue
            try:
                with db.session.begin_nested():
                    created = here.write_here(step, ids, by=by)
                    _keep_link(step, created, {}, both)
            except DomainError as error:
                _set(row_id, "failed", error.message)
                run.errors = [*run.errors, f"{step.name}: {error.message}"][:MOST_ERRORS]
                continue
            _set(row_id, "done")
    _count(run)


class Done(NamedTuple):
    """What came of a step at LiteLLM."""

    created: str | None
    held: dict[str, Any]
    error: str | None


def _try_there(step: Step, both: Both, litellm: LiteLLM) -> Done:
    """Raises `LiteLLMFailed` if LiteLLM as a whole fails, and not this step."""
    try:
        created, held = here.write_there(step, both.ids_there(), both.groups, litellm)
    except LiteLLMFailed as failed:
        if not failed.refused:
            raise
        return Done(None, {}, failed.message)
    except DomainError as error:
        return Done(None, {}, error.message)
    finally:
        db.session.rollback()
    return Done(created, held, None)


def _note(id: str, row_id: str, step: Step | None, done: Done | None, both: Both) -> None:
    run = sync.run(id)
    run.leased_until_ms = now_ms() + LEASE_MS
    if step is None or done is None:
        _set(row_id, "skipped")
    elif done.error is not None:
        _set(row_id, "failed", done.error)
        run.errors = [*run.errors, f"{step.name}: {done.error}"][:MOST_ERRORS]
    else:
        _keep_link(step, done.created, done.held, both)
        _set(row_id, "done")
        by = _actor(run)
        after = {"act": step.act, "fields": sorted(step.values())}
        with audit.acting(by.username):
            audit.record(by, "sync.push", "sync", row_id, name=f"{step.entity}: {step.name}"[:255], after=after)
    run.done += 1


def _keep_link(step: Step, created: str | None, held: dict[str, Any], both: Both) -> None:
    old = both.links[step.entity].get((step.portico_id or "", step.litellm_id or ""))
    link = here.after(step, old, created, held)
    pair = link.portico_id, link.litellm_id
    if step.act == "delete":
        both.links[step.entity].pop(pair, None)
        sync.drop_link(step.entity, link)
    else:
        both.links[step.entity][pair] = link
        sync.keep_link(step.entity, link, decided=step.values())


def _set(row_id: str, state: sync.StepState, error: str | None = None) -> None:
    db.session.execute(update(SyncStep).where(SyncStep.id == row_id).values(state=state, error=error))


def _count(run: SyncRun) -> None:
    run.leased_until_ms = now_ms() + LEASE_MS if run.state == "running" else 0
    waiting = select(SyncStep.id).where(
        SyncStep.plan_id == run.plan_id, SyncStep.state == "waiting", SyncStep.act != "conflict"
    )
    run.done = run.total - len(db.session.scalars(waiting).all())


def _finish(id: str, error: str | None) -> None:
    run = sync.run(id)
    _count(run)
    if error is not None:
        run.errors = [*run.errors, error][:MOST_ERRORS]
    rows = list(db.session.scalars(select(SyncStep).where(SyncStep.plan_id == run.plan_id, SyncStep.act != "conflict")))
    run.counts = dict(Counter(row.act for row in rows if row.state == "done"))
    run.counts |= {state: count for state, count in Counter(row.state for row in rows).items() if state != "done"}
    is_good = error is None and not any(row.state == "failed" for row in rows)
    run.state, run.finished_at, run.leased_until_ms = "done" if is_good else "failed", now(), 0
    sync.plan(run.plan_id).state = "applied" if is_good else "failed"
    if error:
        sync.plan(run.plan_id).error = error
    log.info("a run ended: %s", run.state)


def _actor(run: SyncRun) -> Person:
    """Who asked for a run, else the first admin."""
    person = identity.by_id(run.by_id) if run.by_id else None
    if person is None or not person.is_admin:
        admins = select(Person).where(Person.role == "admin", Person.disabled.is_(False)).order_by(Person.created_at)
        person = db.session.scalar(admins.limit(1))
    assert person is not None  # there is always an admin
    return person


# --- the clock ---


def look() -> None:
    """Go on with a run whose process died, and begin a plan if one is due. Applies plans of the schedule."""
    found = sync.connection()
    if found is None:
        return
    for run in db.session.scalars(select(SyncRun).where(SyncRun.state == "running")).all():
        if run.leased_until_ms < now_ms():
            go_on(run.id)
    due_at = next_at()
    if due_at is None or due_at > now():
        return
    id = transaction(lambda: plan(None, by=None).id)
    make_plan(id)
    if sync.plan(id).state == "ready":
        transaction(lambda: apply(sync.plan(id), by=None))


def next_at() -> datetime | None:
    """When the schedule begins the next plan; None if it is done by hand."""
    found = sync.connection()
    if found is None or not found.interval_minutes:
        return None
    newest = db.session.scalar(sync.plans().limit(1))
    return now() if newest is None else newest.created_at + timedelta(minutes=found.interval_minutes)
