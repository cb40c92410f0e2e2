"""What everyone may know without signing in: whether calls are accepted, and how the open models do.

It names only models that are in the catalogue and not restricted, and no provider, address or reason. Each process gathers it
at most twice a minute, however many look.
"""

from __future__ import annotations

from threading import Lock

import msgspec
from flask import Flask, current_app
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import clock
from app.domain.catalog import OFFERED, Model
from app.extensions import db
from app.reports import performance
from app.reports.performance import Span
from app.workflows import provider_health, status
from app.workflows.provider_health import StateOfHealth

MOST = 200  # models
FRESH_MS = 30_000
INSTALLED = "portico_public_status"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `month` has the last 30 days, None without requests; `health` has no reason."""

    name: str
    display_name: str
    health: StateOfHealth
    served: bool
    month: Span | None


class PublicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`models` is None while they can't be read; `at_ms` tells when it was gathered."""

    at_ms: int
    accepts_calls: bool
    models: list[Line] | None

    @property
    def failing(self) -> int:
        return sum(one.health.state == "failing" for one in self.models or ())

    @property
    def degraded(self) -> int:
        return sum(one.health.state == "degraded" for one in self.models or ())


class Latest:
    """What a process gathered last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: PublicStatus | None = None

    def read(self) -> PublicStatus:
        """The last status, if it is fresh; one caller gathers for all that wait."""
        with self._lock:
            found = self._found
            if found is None or not 0 <= clock.now_ms() - found.at_ms < FRESH_MS:
                found = self._found = _gather()
            return found


def init_public_status(app: Flask) -> None:
    app.extensions[INSTALLED] = Latest()


def present() -> PublicStatus:
    """The status, at most half a minute old."""
    latest: Latest = current_app.extensions[INSTALLED]
    return latest.read()


def _gather() -> PublicStatus:
    try:
        models: list[Line] | None = _models()
    except SQLAlchemyError:
        db.session.rollback()
        models = None
    return PublicStatus(at_ms=clock.now_ms(), accepts_calls=status.accepts_calls(), models=models)


def _models() -> list[Line]:
    query = select(Model).where(Model.status.in_(OFFERED), Model.restricted.is_(False)).order_by(Model.name).limit(MOST)
    models = list(db.session.scalars(query))
    health = provider_health.of_models(models)
    months = performance.month_of([model.name for model in models])
    return [
        Line(
            name=model.name,
            display_name=model.display_name,
            health=msgspec.structs.replace(health[model.id], reason=None),
            served=model.is_served,
            month=months.get(model.name),
        )
        for model in models
    ]
