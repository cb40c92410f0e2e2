"""Figures of the whole deployment for `/metrics`: what waits, what runs, and what the portal has.

They come from Redis and SQL, so that every host tells the same: take their maximum over hosts, not their sum. SQL is asked
once a minute at most in a process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.subscriptions import Subscription
from app.domain.teams import Team
from app.extensions import db
from app.runtime import health
from app.workflows import status

EVERY_S = 60.0

Counts = dict[tuple[str, str], int]  # by noun and state


class Figures(Collector):
    """One for each application; asked within its context."""

    def __init__(self) -> None:
        self._counts: Counts = {}
        self._due = 0.0

    def collect(self) -> Iterator[Metric]:
        now = status.present()
        up = GaugeMetricFamily(
            "portico_up", "1 while a store answers, or a process of that name beats.", labels=["part"]
        )
        up.add_metric(["database"], float(now.database.answers))
        up.add_metric(["redis"], float(now.redis.answers))
        for process in now.processes:
            up.add_metric([process.name], float(process.running))
        yield up
        health = GaugeMetricFamily("portico_provider_up", "0 while a provider is failing.", labels=["provider"])
        for provider in now.providers:
            if provider.state != "disabled":
                health.add_metric([provider.name], float(provider.state != "failing"))
        yield health
        for name, documentation, value in (
            ("portico_meter_open", "1 while calls that cost money are admitted.", now.meter.open if now.meter else None),
            ("portico_usage_waiting", "Usage events that are not in the ledger.", now.usage_waiting),
            ("portico_usage_lag_seconds", "Age of the oldest of these.", now.drainer.lag_ms / 1000 if now.drainer else None),
            ("portico_changes_waiting", "Changes that the gateway has not got.", now.changes_waiting),
            ("portico_dead_letters", "Usage events that need a decision.", now.dead_letters),
            ("portico_drifting_counters", "Counters that differ from the ledger.", now.quotas.drifting if now.quotas else None),
            ("portico_clock_difference_seconds", "Portico's clock minus Redis's.",
             now.times.difference_ms / 1000 if now.times else None),
        ):  # fmt: skip
            if value is not None:
                gauge = GaugeMetricFamily(name, documentation)
                gauge.add_metric([], float(value))
                yield gauge
        yield self._things()

    def _things(self) -> Metric:
        if time.monotonic() >= self._due:
            try:
                self._counts, self._due = _count(), time.monotonic() + EVERY_S
            except SQLAlchemyError:  # `portico_up` tells of it; the last counts stand
                db.session.rollback()
        counted = GaugeMetricFamily("portico_things", "What the portal has.", labels=["noun", "state"])
        for labels, number in sorted(self._counts.items()):
            counted.add_metric(labels, number)
        return counted


def register(app: Flask) -> None:
    """Have `/metrics` of `app` tell them."""
    health.add_collector(app, Figures())


def _count() -> Counts:
    counts: Counts = {}
    for noun, column in (
        ("model", Model.status),
        ("provider", Provider.status),
        ("subscription", Subscription.recorded_status),
        ("person", Person.role),
    ):
        for state, number in db.session.execute(select(column, func.count()).group_by(column)):
            counts[noun, state] = number
    counts["team", ""] = db.session.scalar(select(func.count()).select_from(Team)) or 0
    counts["key", "live"] = db.session.scalar(select(func.count()).where(ApiKey.revoked_at.is_(None))) or 0
    db.session.rollback()
    return counts
