"""How this Portico is doing: its parts, and what waits between them."""

from __future__ import annotations

import time
from datetime import datetime

import msgspec
from redis import RedisError
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app import clock, condition, current
from app.blueprints.api.contract import me, route
from app.domain.catalog import Model
from app.domain.providers import Provider
from app.extensions import db
from app.metering import money

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
    """A counter that differs from the books: what Redis says, what they say, and the first less the second."""

    counter: str
    counted: str
    booked: str
    difference: str


class Quotas(msgspec.Struct, kw_only=True):
    """The last comparison of the counters with the books; at most 50 that differ are named."""

    at: datetime
    overdue: bool
    compared: int
    drifting: int
    drift: list[Drifting]


class Status(msgspec.Struct, kw_only=True):
    """`usage_waiting` are usage events not yet posted, `changes_waiting` changes not yet published.

    What could not be read, or has never been told, is null; what concerns operators is told to admins alone, and is
    null or empty for others. `concerns` are sentences, the worst first; `level` is
    ok, warning or danger; amounts are decimals. A drifting counter's name is `<scope>:<id>:<period>`.
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
    meter: condition.Meter | None
    processes: list[condition.Process]
    times: condition.Times | None
    drainer: condition.Drainer | None
    rollups: condition.Rollups | None
    quotas: Quotas | None
    stores: list[condition.Store]
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
    """Whether each part answers, and how fast."""
    return _health()


@route("GET", "/api/status", answer=Status)
def status() -> Status:
    """The state of the whole and what waits in it; for admins also how each part is doing."""
    now = condition.present()
    told = me().sees_everything
    return Status(
        status="ok" if now.database.answers and now.redis.answers else "degraded",
        level=now.level,
        concerns=[concern.what for concern in now.concerns if told],
        started_at=STARTED,
        time=now.at,
        models=db.session.scalar(select(func.count()).select_from(Model)) or 0,
        providers=db.session.scalar(select(func.count()).select_from(Provider)) or 0,
        usage_waiting=now.usage_waiting,
        changes_waiting=now.changes_waiting,
        dead_letters=now.dead_letters if told else None,
        meter=now.meter,
        processes=now.processes if told else [],
        times=now.times if told else None,
        drainer=now.drainer if told else None,
        rollups=now.rollups if told else None,
        quotas=_quotas(now.quotas) if told else None,
        stores=[now.database, now.redis] if told else [],
        versions=now.versions if told else {},
    )


def _quotas(found: condition.Quotas | None) -> Quotas | None:
    if found is None:
        return None
    return Quotas(
        at=found.at,
        overdue=found.overdue,
        compared=found.compared,
        drifting=found.drifting,
        drift=[
            Drifting(
                counter=one.name,
                counted=money.text(one.counted_nano),
                booked=money.text(one.booked_nano),
                difference=money.text(one.nano),
            )
            for one in found.drift
        ],
    )
