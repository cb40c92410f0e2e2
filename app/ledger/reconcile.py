"""Reconciling: do Redis's counters say what the books say?

Under load the two are never read at one instant, so a difference counts only when it stays the same over several
looks with all that still waits in the stream added to the books; then it is drift, reported and left alone here.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec
import structlog
from redis import Redis

from app import store
from app.extensions import db
from app.ledger import budgets, posting
from app.metering.usage import UsageEvent

LOOKS = 3
BETWEEN_LOOKS_S = 0.3
RECENT_MS = 2 * 3_600_000
MOST_WAITING = 20_000  # entries of the stream that are looked at
SHORTEST_MS = {"day": 22 * 3_600_000, "week": 6 * 86_400_000, "month": 27 * 86_400_000}

Name = tuple[str, str, str]  # scope kind, scope id, period name

log = structlog.get_logger(__name__)

_decode = msgspec.json.Decoder(UsageEvent).decode


class Drift(NamedTuple):
    """A counter that differs from the books: nano-units each."""

    kind: str
    id: str
    period: str
    counted_nano: int  # by Redis
    booked_nano: int  # in the ledger and on the way to it

    @property
    def nano(self) -> int:
        return self.counted_nano - self.booked_nano


class Comparison(NamedTuple):
    """How many counters were compared, and those that drift."""

    compared: int
    drift: list[Drift]


def compare(redis: Redis, *, recent_ms: int = RECENT_MS, pause_s: float = BETWEEN_LOOKS_S) -> Comparison:
    """Compare the counters of running periods that were charged in the last `recent_ms` with the books.

    Each drift is logged as an error. While more waits in the stream than can be looked at, nothing is compared.
    Raises `RedisError` and SQLAlchemy's errors.
    """
    names = [name for name in budgets.charged_since(_now_ms() - recent_ms) if _runs(name[2])]
    db.session.rollback()
    compared = len(names)
    differing: dict[Name, Drift] = {}
    for look in range(LOOKS):
        found = _look(redis, names)
        if found is None:
            return Comparison(0, [])
        differing = {
            drift[:3]: drift
            for drift in found
            if look == 0 or (drift[:3] in differing and differing[drift[:3]].nano == drift.nano)
        }
        names = list(differing)
        if not names:
            break
        if look < LOOKS - 1:
            time.sleep(pause_s)
    for drift in differing.values():
        log.error("a counter differs from the books", **drift._asdict(), drift_nano=drift.nano)
    return Comparison(compared, list(differing.values()))


def _look(redis: Redis, names: list[Name]) -> list[Drift] | None:
    """The counters that differ now; None while too much waits in the stream."""
    with redis.pipeline(transaction=True) as pipe:  # counters and what waits, of one instant
        pipe.xrange(store.USAGE, count=MOST_WAITING)
        for name in names:
            pipe.hget(store.spent(*name), "spent")
        waiting, *counted = pipe.execute()
    if len(waiting) >= MOST_WAITING:
        return None
    events = _events(waiting)
    booked = budgets.spent_of(names)
    known = posting.known_requests(event.request_id for event in events)
    db.session.rollback()  # the next look must not see this one's moment again
    for event in events:
        if event.request_id not in known:
            for scope in event.scopes:
                booked[scope] = booked.get(scope, 0) + event.cost_nano
    return [
        Drift(*name, int(spent or 0), booked.get(name, 0))
        for name, spent in zip(names, counted, strict=True)
        if int(spent or 0) != booked.get(name, 0)
    ]


def _events(entries: list[tuple[str, dict[str, str]]]) -> list[UsageEvent]:
    events = []
    for _, fields in entries:
        try:
            events.append(_decode(fields["e"]))
        except (KeyError, msgspec.DecodeError):
            continue  # the drainer makes a dead letter of it
    return events


def _runs(period: str) -> bool:
    """Whether a period of this name surely still runs: the counters of past ones may be gone from Redis."""
    kind, _, start_s = period.partition("-")
    return period == "total" or _now_ms() < int(start_s or 0) * 1000 + SHORTEST_MS.get(kind, 0)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
