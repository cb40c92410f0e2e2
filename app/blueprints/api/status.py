"""The state of this Portico: its parts, and what waits between them."""

from __future__ import annotations

import time
from datetime import datetime

import msgspec
from redis import RedisError
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app import clock, current
from app.blueprints.api.contract import me, route
from app.domain.catalog import Model
from app.domain.providers import Provider
from app.extensions import db
from app.metering import money
from app.workflows import status as status_facts
from app.workflows.provider_health import ModelHealth, ProviderHealth

STARTED = clock.now()


class Component(msgspec.Struct, kw_only=True):
    """`status` is ok or down."""

    name: str
    status: str
    latency_ms: float | None = None


class Health(msgspec.Struct, kw_only=True):
    """`status` is ok, or degraded when a component is down."""

    status: str
    components: list[Component]


class Drifting(msgspec.Struct, kw_only=True):
    """A counter that differs from the ledger: the value in Redis, the value in the ledger, and Redis minus ledger."""

    counter: str
    counted: str
    booked: str
    difference: str


class Quotas(msgspec.Struct, kw_only=True):
    """The last comparison of the counters with the ledger. At most 50 that differ are listed."""

    at: datetime
    overdue: bool
    compared: int
    drifting: int
    drift: list[Drifting]


class Status(msgspec.Struct, kw_only=True):
    """`usage_waiting` are usage events not yet posted, `changes_waiting` changes not yet published.

    What could not be read, or was never reported, is null. Only admins see what concerns operators; for others it is
    null or empty. `concerns` are sentences, the worst first; `level` is ok, warning or danger; amounts are decimals.
    The name of a drifting counter is `<scope>:<id>:<period>`. `model_health` lists the models that are failing or degraded.
    """

    status: str
    level: str
    concerns: list[str]
    started_at: datetime
    time: datetime
    models: int
    providers: int
    usage_waiting: int | None
    changes_waiting: int | None
    dead_letters: int | None
    meter: status_facts.Meter | None
    processes: list[status_facts.Process]
    times: status_facts.Times | None
    drainer: status_facts.Drainer | None
    rollups: status_facts.Rollups | None
    quotas: Quotas | None
    stores: list[status_facts.Store]
    provider_health: list[ProviderHealth]
    model_health: list[ModelHealth]
    versions: dict[str, str]


def _database() -> Component:
    start = time.perf_counter()
    try:
        db.session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        db.session.rollback()
        return Component(name="database", status="down")
    return Component(name="database", status="ok", latency_ms=round((time.perf_counter() - start) * 1000, 2))


def _redis() -> Component:
    start = time.perf_counter()
    try:
        current.redis().ping()
    except RedisError:
        return Component(name="redis", status="down")
    return Component(name="redis", status="ok", latency_ms=round((time.perf_counter() - start) * 1000, 2))


def _health() -> Health:
    components = [_database(), _redis()]
    down = any(component.status == "down" for component in components)
    return Health(status="degraded" if down else "ok", components=components)


@route("GET", "/api/status/health", answer=Health)
def health() -> Health:
    """Returns whether each part answers, and how fast."""
    return _health()


@route("GET", "/api/status", answer=Status)
def status() -> Status:
    """Returns the overall state and what waits in it; for admins also the state of each part."""
    now = status_facts.present()
    sees_everything = me().sees_everything
    return Status(
        status="ok" if now.database.answers and now.redis.answers else "degraded",
        level=now.level,
        concerns=[concern.what for concern in now.concerns if sees_everything],
        started_at=STARTED,
        time=now.at,
        models=db.session.scalar(select(func.count()).select_from(Model)) or 0,
        providers=db.session.scalar(select(func.count()).select_from(Provider)) or 0,
        usage_waiting=now.usage_waiting,
        changes_waiting=now.changes_waiting,
        dead_letters=now.dead_letters if sees_everything else None,
        meter=now.meter,
        processes=now.processes if sees_everything else [],
        times=now.times if sees_everything else None,
        drainer=now.drainer if sees_everything else None,
        rollups=now.rollups if sees_everything else None,
        quotas=_quotas(now.quotas) if sees_everything else None,
        stores=[now.database, now.redis] if sees_everything else [],
        provider_health=now.providers if sees_everything else [],
        model_health=now.models if sees_everything else [],
        versions=now.versions if sees_everything else {},
    )


def _quotas(quotas: status_facts.Quotas | None) -> Quotas | None:
    if quotas is None:
        return None
    return Quotas(
        at=quotas.at,
        overdue=quotas.overdue,
        compared=quotas.compared,
        drifting=quotas.drifting,
        drift=[
            Drifting(
                counter=one.name,
                counted=money.text(one.counted_nano),
                booked=money.text(one.booked_nano),
                difference=money.text(one.nano),
            )
            for one in quotas.drift
        ],
    )
