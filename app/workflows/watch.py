"""Alerts about the deployment itself: a figure beyond its threshold for some minutes notifies the admins, and once more when it
is back.

The job `watch` looks once a minute. What it saw is kept in Redis for the status page; a figure that is unknown changes
nothing. The disk is that of the worker's host: Prometheus watches the others (`deploy/prometheus`).
"""

from __future__ import annotations

import shutil
from datetime import datetime
from typing import Any

import msgspec
from redis import Redis
from sqlalchemy import select

from app import clock, current, store
from app.clock import from_ms
from app.domain import notices
from app.domain.person import Person
from app.extensions import db, transaction
from app.reports import latency, usage
from app.reports.planner import EVERYBODY, Filters
from app.workflows import status
from config import Config

SPAN_MS = 300_000  # of calls that a share or a percentile is taken of
FEWEST = 20  # of them: fewer say little
STATUS_PAGE = "/admin/status"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A figure beside its threshold, both in words. `setting` is where the threshold stands; `of` names what is measured where
    there are several. `is_beyond` is None while the figure is not known."""

    setting: str
    title: str
    of: str = ""
    now: str
    threshold: str
    is_beyond: bool | None

    @property
    def name(self) -> str:
        return f"{self.setting}:{self.of}" if self.of else self.setting


class Alarm(msgspec.Struct, kw_only=True):
    """A reading as the page shows it: since when it has been beyond, and whether admins were notified."""

    reading: Reading
    since_ms: int | None = None
    notified: bool = False

    @property
    def since(self) -> datetime | None:
        return None if self.since_ms is None else from_ms(self.since_ms)


def look() -> list[Reading]:
    """All figures that have a threshold, as they are now."""
    config = current.config()
    limits = config.alerts
    readings = []
    if limits.error_percent or limits.first_token_s:
        now_ms = clock.now_ms()
        last = Filters(from_ms=now_ms - SPAN_MS, to_ms=now_ms)
        before = Filters(from_ms=now_ms - SPAN_MS, to_ms=now_ms - SPAN_MS)
        if limits.error_percent:
            sums = usage.totals(EVERYBODY, filters=last)
            readings.append(_reading("error_percent", "Failed calls", _percent(sums.errors, sums.requests), "%"))
        if limits.first_token_s:
            timings = latency.report(EVERYBODY, last, before).sample.all
            p95_s = timings.ttft_p95 / 1000 if timings.ttft_p95 is not None and timings.count >= FEWEST else None
            readings.append(_reading("first_token_s", "Time to first token (95th percentile)", p95_s, " s"))
    condition = status.present()
    if limits.usage_lag_s:
        lag_s = condition.drainer.lag_ms / 1000 if condition.drainer else None
        readings.append(_reading("usage_lag_s", "Usage on its way to the ledger", lag_s, " s"))
    if limits.disk_free_percent:
        free = _percent(*_disk(config), fewest=1)
        readings.append(_reading("disk_free_percent", "Free disk", free, "%", below=True))
    if limits.providers:
        for provider in condition.providers:
            if provider.state not in ("disabled", "unknown"):
                is_failing = provider.state == "failing"
                told = provider.reason or provider.state if is_failing else "Available"
                readings.append(
                    Reading(setting="providers", title="Provider", of=provider.name, now=told, threshold="failing",
                            is_beyond=is_failing)
                )  # fmt: skip
    return readings


def raise_due() -> None:
    """Look, and notify the admins of what has been beyond its threshold for long enough and of what is back."""
    redis = current.redis()
    known = {alarm.reading.name: alarm for alarm in alarms(redis)}
    wait_ms = int(current.config().alerts.after_minutes * 60_000)
    found: dict[str, Alarm] = {}
    for reading in look():
        before = known.get(reading.name, Alarm(reading=reading))
        alarm = found[reading.name] = Alarm(reading=reading, since_ms=before.since_ms, notified=before.notified)
        if reading.is_beyond:
            alarm.since_ms = before.since_ms or clock.now_ms()
            if not alarm.notified and clock.now_ms() - alarm.since_ms >= wait_ms:
                transaction(_notify, reading, "raised")
                alarm.notified = True
        elif reading.is_beyond is False and before.since_ms is not None:
            if alarm.notified:
                transaction(_notify, reading, "over")
            alarm.since_ms, alarm.notified = None, False
    with redis.pipeline(transaction=True) as pipe:
        pipe.delete(store.ALARMS)
        if found:
            pipe.hset(store.ALARMS, mapping={name: msgspec.json.encode(alarm) for name, alarm in found.items()})
        pipe.execute()


def alarms(redis: Redis) -> list[Alarm]:
    """What the last look saw, in its order; what another version wrote is left out. Raises `RedisError`."""
    found = []
    for text in redis.hgetall(store.ALARMS).values():
        try:
            found.append(msgspec.json.decode(text, type=Alarm))
        except msgspec.ValidationError:
            continue
    return found


def _reading(name: str, title: str, value: float | None, unit: str, *, below: bool = False) -> Reading:
    limit = float(getattr(current.config().alerts, name))
    is_beyond = None if value is None else value < limit if below else value > limit
    return Reading(
        setting=name,
        title=title,
        now="Not known" if value is None else f"{value:.1f}{unit}",
        threshold=f"{'below' if below else 'above'} {limit:g}{unit}",
        is_beyond=is_beyond,
    )


def _percent(part: int, whole: int, fewest: int = FEWEST) -> float | None:
    return part * 100 / whole if whole >= fewest else None


def _disk(config: Config) -> tuple[int, int]:
    usage_of_disk = shutil.disk_usage(config.data_dir)
    return usage_of_disk.free, usage_of_disk.total


def _notify(reading: Reading, state: str) -> None:
    subject = f"{reading.title} {reading.of}".strip()
    is_raised = state == "raised"
    title = f"{subject}: {reading.now}" if is_raised else f"{subject}: back to normal"
    text = f"It is {reading.now}; the threshold is {reading.threshold} (setting alerts.{reading.setting})."
    about: dict[str, Any] = {"alert": reading.setting, "subject": reading.of or None, "state": state, "value": reading.now,
                             "threshold": reading.threshold}  # fmt: skip
    admins = db.session.scalars(
        select(Person).where(Person.role == "admin", Person.disabled.is_(False)).order_by(Person.id)
    )
    notices.notify_all(admins, "deployment.alert", title, text, STATUS_PAGE, about=about)
