"""Keeping in step with a LiteLLM: its connection, policies, plans that can be looked at, runs, and conflicts to decide."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route
from app.domain import sync
from app.domain.errors import Invalid, NotFound
from app.litellm.plan import Act, Entity, Policy, Side, Winner
from app.workflows import litellm_sync

Direction = Literal["none", "pull", "push", "both"]
ConflictRule = Literal["litellm", "portico", "merge", "ask"]
Counts = dict[str, int]


class SyncConnection(msgspec.Struct, kw_only=True):
    """`master_key` is masked."""

    url: str
    master_key: str
    interval_minutes: int
    timeout_s: int


class SyncConnectionBody(Body, kw_only=True):
    """Leave `master_key` out, or send it masked, to keep it; another origin needs it again. With `interval_minutes` 0,
    synchronisation is started by hand."""

    url: Annotated[str, Meta(max_length=sync.LONGEST_URL)]
    master_key: Annotated[str, Meta(max_length=1000)] | None = None
    interval_minutes: Annotated[int, Meta(ge=0, le=sync.MOST_INTERVAL_MINUTES)] = 0
    timeout_s: Annotated[int, Meta(ge=1, le=sync.MOST_TIMEOUT_S)] = 10


class SyncTrial(msgspec.Struct, kw_only=True):
    result: Literal["ok", "auth_error", "connection_error", "timeout", "bad_response"]
    version: str | None
    latency_ms: int
    detail: str


class SyncPolicyAnswer(msgspec.Struct, kw_only=True):
    """`pull` writes to Portico, `push` to LiteLLM."""

    create: Direction
    conflict: ConflictRule
    delete: Direction


class SyncPolicies(msgspec.Struct, kw_only=True):
    models: SyncPolicyAnswer
    users: SyncPolicyAnswer
    teams: SyncPolicyAnswer
    members: SyncPolicyAnswer
    keys: SyncPolicyAnswer


class SyncPolicyBody(Body, kw_only=True):
    create: Direction | UnsetType = UNSET
    conflict: ConflictRule | UnsetType = UNSET
    delete: Direction | UnsetType = UNSET


class SyncPoliciesBody(Body, kw_only=True):
    """What is left out stays as it is."""

    models: SyncPolicyBody | UnsetType = UNSET
    users: SyncPolicyBody | UnsetType = UNSET
    teams: SyncPolicyBody | UnsetType = UNSET
    members: SyncPolicyBody | UnsetType = UNSET
    keys: SyncPolicyBody | UnsetType = UNSET


class SyncPlan(msgspec.Struct, kw_only=True):
    id: str
    state: Literal["reading", "ready", "applying", "applied", "failed", "stale"]
    created_at: datetime
    entities: list[str]
    counts: Counts
    error: str | None


class SyncPlanPage(CursorPage, kw_only=True):
    data: list[SyncPlan]


class SyncPlanBody(Body, kw_only=True):
    """Without `entities` everything is compared."""

    entities: Annotated[list[Entity], Meta(min_length=1)] | None = None


class SyncField(msgspec.Struct, kw_only=True):
    """A field on both sides, and as it was at the last synchronisation."""

    name: str
    portico: Any
    litellm: Any
    last: Any


class SyncStep(msgspec.Struct, kw_only=True):
    """`side` is where it is written, null for a conflict. `error` also says why a conflict can't be decided by fields."""

    id: str
    entity: str
    act: str
    side: str | None
    name: str
    external_id: str | None
    fields: list[SyncField]
    state: str
    error: str | None
    decision: dict[str, str] | None


class SyncStepPage(CursorPage, kw_only=True):
    data: list[SyncStep]


class SyncStepQuery(Cursored, kw_only=True):
    entity: Entity | None = None
    act: Act | None = None
    side: Side | None = None


class SyncDecision(Body, kw_only=True):
    """One winner for all fields in conflict, or a winner by field."""

    winner: Winner | None = None
    fields: dict[str, Winner] | None = None


class SyncRun(msgspec.Struct, kw_only=True):
    id: str
    plan_id: str
    state: Literal["running", "done", "failed"]
    done: int
    total: int
    counts: Counts
    errors: list[str]
    started_at: datetime
    finished_at: datetime | None


class SyncRunPage(CursorPage, kw_only=True):
    data: list[SyncRun]


class SyncStatus(msgspec.Struct, kw_only=True):
    """`open`: after failures in a row LiteLLM is left alone for 30 s, and plans fail immediately."""

    state: Literal["off", "ok", "failing", "open"]
    since: datetime | None
    last_run: SyncRun | None
    next_run: datetime | None
    reason: str | None


def _connection(found: sync.Connection) -> SyncConnection:
    return SyncConnection(
        url=found.url,
        master_key=found.hint,
        interval_minutes=found.interval_minutes,
        timeout_s=found.timeout_s,
    )


def _plan(found: sync.SyncPlan) -> SyncPlan:
    return SyncPlan(
        id=found.id,
        state=found.state,  # type: ignore[arg-type]
        created_at=found.created_at,
        entities=found.entities,
        counts=found.counts,
        error=found.error,
    )


def _step(found: sync.SyncStep) -> SyncStep:
    return SyncStep(
        id=found.id,
        entity=found.entity,
        act=found.act,
        side=found.side,
        name=found.name,
        external_id=found.litellm_id,
        fields=[SyncField(**field) for field in found.fields],
        state=found.state,
        error=found.error or found.reason,
        decision=found.decision,
    )


def _run(found: sync.SyncRun) -> SyncRun:
    return SyncRun(
        id=found.id,
        plan_id=found.plan_id,
        state=found.state,  # type: ignore[arg-type]
        done=found.done,
        total=found.total,
        counts=found.counts,
        errors=found.errors,
        started_at=found.started_at,
        finished_at=found.finished_at,
    )


def _policies(found: dict[Entity, Policy]) -> SyncPolicies:
    return msgspec.convert(msgspec.to_builtins(found), SyncPolicies)


@route("GET", "/api/sync/connection", scope="admin", answer=SyncConnection, may_be_absent=True)
def connection() -> SyncConnection:
    """Returns the connection to LiteLLM."""
    found = sync.connection()
    if found is None:
        raise NotFound("LiteLLM is not connected.")
    return _connection(found)


@route(
    "PUT", "/api/sync/connection", scope="admin", answer=SyncConnection, body=SyncConnectionBody, writes=True,
    may_be_absent=True,
)  # fmt: skip
def connect(body: SyncConnectionBody) -> SyncConnection:
    """Connects a LiteLLM."""
    return _connection(
        sync.connect(
            by=me(),
            url=body.url,
            master_key=body.master_key,
            interval_minutes=body.interval_minutes,
            timeout_s=body.timeout_s,
        )
    )


@route("DELETE", "/api/sync/connection", scope="admin", status=204, writes=True, may_be_absent=True)
def disconnect() -> None:
    """Forgets the connection, and with it external ids, plans, runs and last states."""
    sync.forget(by=me())


@route("POST", "/api/sync/connection/test", scope="admin", answer=SyncTrial)
def test() -> SyncTrial:
    """Tries the connection now."""
    found = litellm_sync.test()
    return SyncTrial(result=found.result, version=found.version, latency_ms=found.latency_ms, detail=found.detail)


@route("GET", "/api/sync/policies", scope="admin", answer=SyncPolicies)
def policies() -> SyncPolicies:
    """Returns what is done about each kind of things."""
    return _policies(sync.policies())


@route("PUT", "/api/sync/policies", scope="admin", answer=SyncPolicies, body=SyncPoliciesBody, writes=True)
def change_policies(body: SyncPoliciesBody) -> SyncPolicies:
    """Changes policies."""
    present = sync.policies()
    changes: dict[Entity, Policy] = {}
    for entity, before in present.items():
        given = getattr(body, entity)
        if given is not UNSET:
            values = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not UNSET}
            changes[entity] = msgspec.structs.replace(before, **values)
    return _policies(sync.set_policies(changes, by=me()))


@route("GET", "/api/sync/plans", scope="admin", answer=SyncPlanPage)
def plans() -> dict[str, Any]:
    """Lists plans, newest first."""
    return page(sync.plans(), _plan)


@route("POST", "/api/sync/plans", scope="admin", answer=SyncPlan, status=202, body=SyncPlanBody, writes=True)
def make_plan(body: SyncPlanBody) -> SyncPlan:
    """Begins a plan: both sides are read, and nothing is written."""
    return _plan(litellm_sync.plan(body.entities, by=me()))


@route("GET", "/api/sync/plans/<id>", scope="admin", answer=SyncPlan)
def plan(id: str) -> SyncPlan:
    """Returns one plan."""
    return _plan(sync.plan(id))


@route("GET", "/api/sync/plans/<id>/steps", scope="admin", query=SyncStepQuery, answer=SyncStepPage)
def steps(id: str, query: SyncStepQuery) -> dict[str, Any]:
    """Lists the steps of a plan in their order."""
    found = sync.steps(sync.plan(id), entity=query.entity, act=query.act, side=query.side)
    return page(found, _step)


@route("POST", "/api/sync/plans/<id>/apply", scope="admin", answer=SyncRun, status=202, writes=True)
def apply(id: str) -> SyncRun:
    """Begins to carry out a plan. Repeated, it answers the same run."""
    return _run(litellm_sync.apply(sync.plan(id), by=me()))


@route("GET", "/api/sync/runs", scope="admin", answer=SyncRunPage)
def runs() -> dict[str, Any]:
    """Lists runs, newest first."""
    return page(sync.runs(), _run)


@route("GET", "/api/sync/runs/<id>", scope="admin", answer=SyncRun)
def run(id: str) -> SyncRun:
    """Returns one run."""
    return _run(sync.run(id))


@route("POST", "/api/sync/runs/<id>/resume", scope="admin", answer=SyncRun, status=202, writes=True)
def resume(id: str) -> SyncRun:
    """Goes on with a run that failed: with its steps that are not done."""
    return _run(litellm_sync.resume(sync.run(id), by=me()))


@route("GET", "/api/sync/conflicts", scope="admin", answer=SyncStepPage)
def conflicts() -> dict[str, Any]:
    """Lists the conflicts of the latest plan that wait for a decision."""
    return page(sync.conflicts(), _step)


@route("POST", "/api/sync/conflicts/<id>/decision", scope="admin", answer=SyncStep, body=SyncDecision, writes=True)
def decide(id: str, body: SyncDecision) -> SyncStep:
    """Decides a conflict. The next plan carries it out."""
    if (body.winner is None) == (body.fields is None):
        raise Invalid("Send either winner or fields.", "winner")
    return _step(sync.decide(id, body.winner or body.fields or {}, by=me()))


@route("GET", "/api/sync/status", scope="admin", answer=SyncStatus)
def status() -> SyncStatus:
    """Returns how it goes with LiteLLM."""
    found, last = sync.standing(), sync.last_run()
    return SyncStatus(
        state=found.state,
        since=found.since,
        last_run=_run(last) if last else None,
        next_run=litellm_sync.next_at(),
        reason=found.reason,
    )
