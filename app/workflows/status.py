"""The status of this Portico: its stores, the meter, the background processes, and what waits between them.

The status page and the management API both show it. Any part can be unavailable without hiding the others.
"""

from __future__ import annotations

import platform
import time
import tomllib
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, cast

import msgspec
from redis import Redis, RedisError
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app import clock, current, store
from app.clock import from_ms
from app.domain import providers
from app.domain.changes import PendingChange
from app.extensions import db
from app.runtime import heartbeats, timekeeping
from app.workflows import dead_letters, provider_health
from app.workflows.provider_health import ModelHealth, ProviderHealth
from app.workflows.reconcile import Drift
from config import ROOT

Level = Literal["ok", "warning", "danger"]

OVERDUE_S = 300  # jobs run every minute
SLOW_MS = 10_000  # a longer delay of usage is a warning
MOST_NAMED = 10  # models in one warning


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """The database or Redis. `kind` is its product and version; `latency_ms` is None while it does not answer."""

    name: str
    kind: str | None
    embedded: bool
    latency_ms: float | None

    @property
    def answers(self) -> bool:
        return self.latency_ms is not None


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """The meter. `counting`: Redis was lost or restarted, and the counters are being recounted."""

    open: bool
    counting: bool


class Drainer(msgspec.Struct, frozen=True, kw_only=True):
    """The drainer's last report. Counts are since its start; `trouble` is empty if there is none."""

    at: datetime
    running: bool
    lag_events: int
    lag_ms: int
    posted: int
    reaped: int
    replayed: int
    spools_waiting: int
    torn_lines: int
    trouble: str


class Rollups(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of the job `rollups`; `differences` counts sums that differ from their entries."""

    at: datetime
    overdue: bool
    derived: int
    differences: int
    first_difference: str


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """The last comparison of Redis's counters with the ledger; `drift` has the first 50 that differ."""

    at: datetime
    overdue: bool
    compared: int
    drifting: int
    drift: list[Drift]


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A background process by its name in the Procfile; `running`: it has sent a heartbeat recently."""

    name: str
    running: bool


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How far Portico's clock is ahead of Redis's in ms, and the last recent jump of Redis's clock in ms."""

    difference_ms: int
    step_ms: int | None
    stepped_at: datetime | None

    @property
    def differ(self) -> bool:
        return abs(self.difference_ms) > timekeeping.TOLERATED_MS


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """One problem, in a sentence for admins."""

    level: Level
    what: str


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """The whole status. A part is None if it could not be read or has never reported."""

    at: datetime
    database: Store
    redis: Store
    meter: Meter | None
    processes: list[Process]
    times: Times | None
    drainer: Drainer | None
    rollups: Rollups | None
    quotas: Quotas | None
    usage_waiting: int | None
    changes_waiting: int | None
    dead_letters: int | None
    providers: list[ProviderHealth] = []
    models: list[ModelHealth] = []  # those that are not well
    versions: dict[str, str]

    @property
    def concerns(self) -> list[Concern]:
        """The problems, worst first."""
        return sorted(_concerns(self), key=lambda concern: concern.level != "danger")

    @property
    def level(self) -> Level:
        return self.concerns[0].level if self.concerns else "ok"


def present() -> Condition:
    """The current status. It makes one or two calls to each store and waits for no process."""
    redis, parts = _redis()
    database, waiting, letters = _database()
    upstreams, models = _health() if database.answers else ([], [])
    return Condition(
        at=clock.now(),
        database=database,
        redis=redis,
        meter=parts.get("meter"),
        processes=parts.get("processes", []),
        times=parts.get("times"),
        drainer=parts.get("drainer"),
        rollups=parts.get("rollups"),
        quotas=parts.get("quotas"),
        usage_waiting=parts.get("usage"),
        changes_waiting=waiting,
        dead_letters=letters,
        providers=upstreams,
        models=models,
        versions={"Portico": version(), "Python": platform.python_version()}
        | {one.name: one.kind for one in (database, redis) if one.kind},
    )


def accepts_calls() -> bool:
    """Whether calls that cost money are accepted: Redis answers, and the meter is open."""
    meter = _redis()[1].get("meter")
    return meter is not None and meter.open


def forget_drift(redis: Redis, drift: Drift) -> None:
    """Remove a repaired counter from the last comparison, so that nobody repairs it again from an old list."""
    found = _quotas(cast("dict[str, str]", redis.hgetall(store.QUOTAS_STATUS)))
    if found is None:
        return
    left = [one for one in found.drift if one.name != drift.name]
    gone = len(found.drift) - len(left)
    rows = [{**one._asdict(), "drift_nano": one.nano} for one in left]
    redis.hset(store.QUOTAS_STATUS, mapping={"drift": msgspec.json.encode(rows), "drifting": found.drifting - gone})


@cache
def version() -> str:
    """Portico's own version."""
    try:
        with (ROOT / "pyproject.toml").open("rb") as file:
            return str(tomllib.load(file)["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"


_WITHOUT: dict[str, tuple[Level, str]] = {
    "drainer": ("danger", "The drainer is not running: usage does not reach the ledger."),
    "worker": ("warning", "The worker is not running: e-mail, webhooks and periodic jobs wait."),
    "clock": ("warning", "The clock is not running: periodic jobs do not start."),
}


def _concerns(now: Condition) -> list[Concern]:
    found: list[Concern] = []

    def add(level: Level, what: str) -> None:
        found.append(Concern(level=level, what=what))

    if not now.database.answers:
        add("danger", "The database does not answer: calls continue, and their usage waits.")
    if not now.redis.answers:
        add("danger", "Redis does not answer: only calls to free models are accepted.")
        return found
    if now.meter and not now.meter.open:
        counting = " A recount is running and takes some seconds." if now.meter.counting else ""
        add("danger", f"The meter is closed: calls that cost money are refused.{counting}")
    for process in now.processes:
        if not process.running:
            add(*_WITHOUT[process.name])
    if now.drainer is not None and now.drainer.running:
        if now.drainer.lag_ms > SLOW_MS:
            add("warning", "Usage reaches the ledger late.")
        if now.drainer.trouble:
            add("warning", f"The drainer has trouble: {now.drainer.trouble}.")
    if now.times is not None:
        if now.times.differ:
            add("warning", f"The clocks of Portico and Redis differ by {abs(now.times.difference_ms) / 1000:.0f} s.")
        if now.times.step_ms is not None:
            way = "ahead" if now.times.step_ms > 0 else "back"
            add("warning", f"Redis's clock recently jumped {way} by {abs(now.times.step_ms) / 1000:.0f} s.")
    if now.rollups and now.rollups.overdue or now.quotas and now.quotas.overdue:
        add("warning", "Periodic jobs are overdue.")
    if now.rollups and now.rollups.differences:
        add("danger", "Usage sums differ from their ledger entries.")
    if now.quotas and now.quotas.drifting:
        count = now.quotas.drifting
        add("danger", f"{count} {'counter differs' if count == 1 else 'counters differ'} from the ledger.")
    if now.dead_letters:
        count = now.dead_letters
        add("warning", f"{count} dead {'letter needs' if count == 1 else 'letters need'} a decision.")
    failing = [provider for provider in now.providers if provider.state == "failing"]
    for provider in failing:
        add("warning", f"The provider {provider.name} is failing: {provider.reason}")
    explained = {name for provider in failing for name in provider.models}
    stopped = [model.name for model in now.models if not model.served]
    if stopped:
        have, them = ("model has", "it") if len(stopped) == 1 else ("models have", "them")
        add("warning", f"{len(stopped)} {have} no active provider, so calls to {them} are refused: {_some(stopped)}.")
    ailing = [one for one in now.models if one.served and one.state == "failing" and one.name not in explained]
    for model in ailing[:MOST_NAMED]:
        add("warning", f"The model {model.name} is failing: {model.reason}")
    if len(ailing) > MOST_NAMED:
        add("warning", f"{len(ailing) - MOST_NAMED} more models are failing.")
    return found


def _some(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _health() -> tuple[list[ProviderHealth], list[ModelHealth]]:
    try:
        return provider_health.of_all(list(db.session.scalars(providers.search()))), provider_health.not_well()
    except SQLAlchemyError:
        db.session.rollback()
        return [], []


def _database() -> tuple[Store, int | None, int | None]:
    """The database, the number of pending changes, and the number of open dead letters."""
    config = current.config()
    sqlite = config.database_url.startswith("sqlite")
    began = time.perf_counter()
    try:
        number = db.session.scalar(text("SELECT sqlite_version()" if sqlite else "SHOW server_version"))
        latency_ms = _since(began)
        waiting = db.session.scalar(select(func.count()).select_from(PendingChange)) or 0
        letters = dead_letters.open_count()
    except SQLAlchemyError:
        db.session.rollback()
        return Store(name="Database", kind=None, embedded=sqlite, latency_ms=None), None, None
    kind = f"{'SQLite' if sqlite else 'PostgreSQL'} {number}"
    return (
        Store(name="Database", kind=kind, embedded=sqlite, latency_ms=latency_ms),
        waiting,
        letters,
    )


def _redis() -> tuple[Store, dict[str, Any]]:
    """Redis, and the parts of the status that it holds, by name."""
    embedded = current.config().redis_embedded
    client = current.redis()
    began = time.perf_counter()
    try:
        client.ping()
        latency_ms = _since(began)
        server: dict[str, Any] = client.info("server")
        with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(store.METER)
            for name in (store.DRAINER_STATUS, store.ROLLUPS_STATUS, store.QUOTAS_STATUS):
                pipe.hgetall(name)
            pipe.xlen(store.USAGE)
            meter, drained, rolled, compared, usage = pipe.execute()
        missing = heartbeats.missing(client)
        times = timekeeping.look(client)
    except RedisError:
        return Store(name="Redis", kind=None, embedded=embedded, latency_ms=None), {}
    number = server.get("valkey_version")
    kind = f"Valkey {number}" if number else f"Redis {server.get('redis_version', '')}".strip()
    parts = {
        "meter": Meter(
            open="epoch" in meter and meter.get("run_id") == server.get("run_id"), counting="counting" in meter
        ),
        "processes": [Process(name=name, running=name not in missing) for name in heartbeats.PROCESSES],
        "times": Times(
            difference_ms=times.difference_ms,
            step_ms=times.step.ms if times.step else None,
            stepped_at=from_ms(times.step.at_ms) if times.step else None,
        ),
        "drainer": _drainer(drained, running="drainer" not in missing),
        "rollups": _rollups(rolled),
        "quotas": _quotas(compared),
        "usage": int(usage),
    }
    return Store(name="Redis", kind=kind, embedded=embedded, latency_ms=latency_ms), parts


def _drainer(report: dict[str, str], *, running: bool) -> Drainer | None:
    if "at_ms" not in report:
        return None
    return Drainer(
        at=_moment(report),
        running=running,
        lag_events=_number(report, "lag_events"),
        lag_ms=_number(report, "lag_ms"),
        posted=_number(report, "posted"),
        reaped=_number(report, "reaped"),
        replayed=_number(report, "replayed"),
        spools_waiting=_number(report, "spools_waiting"),
        torn_lines=_number(report, "torn_lines"),
        trouble=report.get("trouble", ""),
    )


def _rollups(report: dict[str, str]) -> Rollups | None:
    if "at_ms" not in report:
        return None
    at = _moment(report)
    return Rollups(
        at=at,
        overdue=_is_overdue(at),
        derived=_number(report, "derived"),
        differences=_number(report, "differences"),
        first_difference=report.get("first_difference", ""),
    )


def _quotas(report: dict[str, str]) -> Quotas | None:
    if "at_ms" not in report:
        return None
    at = _moment(report)
    rows = msgspec.json.decode(report.get("drift") or "[]")
    return Quotas(
        at=at,
        overdue=_is_overdue(at),
        compared=_number(report, "compared"),
        drifting=_number(report, "drifting"),
        drift=[Drift(*(row[field] for field in Drift._fields)) for row in rows],
    )


def _moment(report: dict[str, str]) -> datetime:
    return from_ms(_number(report, "at_ms"))


def _is_overdue(at: datetime) -> bool:
    return clock.now() - at > timedelta(seconds=OVERDUE_S)


def _number(report: dict[str, str], name: str) -> int:
    return int(report.get(name) or 0)


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
