"""How this Portico is doing: its parts, and what waits between them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec
from redis import RedisError
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app import current, store
from app.blueprints.api.contract import route
from app.domain.catalog import Model, Provider
from app.domain.changes import PendingChange
from app.extensions import db

STARTED = datetime.now(UTC)


class Component(msgspec.Struct, kw_only=True):
    """`status` is ok or down."""

    name: str
    status: str
    latency_ms: float | None = None


class Health(msgspec.Struct, kw_only=True):
    """`status` is ok, or degraded when a component is down."""

    status: str
    components: list[Component]


class Status(msgspec.Struct, kw_only=True):
    """`usage_waiting` are usage events not yet posted, `changes_waiting` changes not yet published."""

    status: str
    started_at: datetime
    time: datetime
    models: int
    providers: int
    usage_waiting: int | None
    changes_waiting: int


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
    """The state of the whole and what waits in it."""
    try:
        waiting: int | None = int(current.redis().xlen(store.USAGE))
    except RedisError:
        waiting = None
    return Status(
        status=_health().status,
        started_at=STARTED,
        time=datetime.now(UTC),
        models=db.session.scalar(select(func.count()).select_from(Model)) or 0,
        providers=db.session.scalar(select(func.count()).select_from(Provider)) or 0,
        usage_waiting=waiting,
        changes_waiting=db.session.scalar(select(func.count()).select_from(PendingChange)) or 0,
    )
