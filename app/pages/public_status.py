"""What everyone may know without signing in: whether calls are accepted, and how the open models do.

It names only models that are in the catalogue and not restricted, and no provider, address or reason. Each process gathers it
at most twice a minute, however many look.
"""

from __future__ import annotations

from threading import Lock

import msgspec
from flask import Flask, current_app, render_template
from markupsafe import Markup
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
    """What a process gathered last, and how that looks."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: tuple[PublicStatus, Markup] | None = None

    def read(self) -> tuple[PublicStatus, Markup]:
        """The last status, if it is fresh; one caller gathers and renders for all that wait."""
        with self._lock:
            if self._found is None or not 0 <= clock.now_ms() - self._found[0].at_ms < FRESH_MS:
                now = _gather()
                report = render_template("public/_status.html", now=now, at=clock.from_ms(now.at_ms))
                self._found = now, Markup(report)  # noqa: S704 - the template has escaped what it shows
            return self._found


def init_public_status(app: Flask) -> None:
    app.extensions[INSTALLED] = Latest()


def present() -> tuple[PublicStatus, Markup]:
    """The status, at most half a minute old, and the part of a page that shows it."""
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
