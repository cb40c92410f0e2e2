"""Traffic of providers and deployments in the last hour, and the state of their circuit breakers.

Every attempt counts where its provider is judged, also one that a fallback rescued.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from redis import Redis, RedisError
from sqlalchemy import select

from app import clock, current, store
from app.clock import from_ms
from app.domain.catalog import Deployment
from app.domain.providers import Provider
from app.domain.search import one_of
from app.extensions import db
from app.gateway import breakers, traffic
from app.gateway.breakers import Trips

IN_A_ROW = 3  # failed attempts: the deployment is failing

log = logging.getLogger(__name__)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts at a provider, or at one deployment, in the last hour."""

    requests: int = 0
    errors: int = 0
    failures: int = 0  # attempts in a row, the last ones
    is_open: bool = False  # its circuit breaker, or those of all its deployments
    breakers_open: int = 0  # of its deployments: they get no calls
    breakers_half_open: int = 0  # of its deployments: the next call is a probe
    deployments: int = 0  # that had calls, or whose breaker is not closed
    fails_in_part: bool = False  # one of its deployments does, while another is well
    cost_nano: int = 0  # what failed attempts cost that told their usage
    since: datetime | None = None  # of the last failures, or of the breaker's state
    reason: str | None = None


class Seen(NamedTuple):
    """A deployment's attempts. `row` counts failures in a row; `since_ms` is when the current run of failures or successes
    began."""

    trip: breakers.Trip | None = None
    requests: int = 0
    errors: int = 0
    cost_nano: int = 0
    row: int = 0
    since_ms: int | None = None
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether its circuit breaker is open. A deployment that only rests counts as healthy."""
        return self.trip is not None and self.trip.times > 0

    @property
    def fails(self) -> bool:
        return self.is_open or self.row >= IN_A_ROW


def joined(deployments: Iterable[Seen]) -> Traffic:
    """Sums the last hour's traffic of a provider's deployments."""
    known = [one for one in deployments if one.requests or one.is_open]
    if not known:
        return Traffic()
    now_ms = clock.now_ms()
    tripped = [one.trip.is_open(now_ms) for one in known if one.trip is not None and one.is_open]
    all_open, all_fail = all(one.is_open for one in known), all(one.row for one in known)
    worst = max(known, key=lambda one: (one.is_open, one.fails, one.row, one.errors))
    since_ms, reason = worst.since_ms, worst.reason if worst.errors else None
    if worst.trip is not None and worst.is_open:
        since_ms, reason = worst.trip.since_ms, worst.trip.reason
    return Traffic(
        requests=sum(one.requests for one in known),
        errors=sum(one.errors for one in known),
        failures=sum(one.row for one in known) if all_fail else 0,
        is_open=all_open,
        breakers_open=tripped.count(True),
        breakers_half_open=tripped.count(False),
        deployments=len(known),
        fails_in_part=not all_open and any(one.fails for one in known),
        cost_nano=sum(one.cost_nano for one in known),
        since=None if since_ms is None else from_ms(since_ms),
        reason=reason,
    )


def of(items: Sequence[Provider]) -> dict[str, Traffic]:
    """The traffic of these providers, by id; empty while Redis does not answer."""
    ids = [item.id for item in items]
    rows = db.session.execute(
        select(Deployment.id, Deployment.provider_id).where(one_of(Deployment.provider_id, ids))
    ).all()
    seen = _seen([(id, provider_id) for id, provider_id in rows])
    if seen is None:
        return {}
    ways: dict[str, list[Seen]] = {id: [] for id in ids}
    for id, provider_id in rows:
        ways[provider_id].append(seen[id])
    return {id: joined(found) for id, found in ways.items()}


def of_deployments(items: Iterable[Deployment]) -> dict[str, Traffic]:
    """The traffic of each of these deployments, by id; empty while Redis does not answer."""
    return by_deployment([(item.id, item.provider_id) for item in items])


def by_deployment(ways: Sequence[tuple[str, str]]) -> dict[str, Traffic]:
    """`of_deployments` of deployments given by their ids and their providers'."""
    return {id: joined([one]) for id, one in (_seen(ways) or {}).items()}


def in_trouble() -> tuple[set[str], set[str]]:
    """The ids of the deployments that had a failed attempt in the last hour or whose breaker is not closed, and of the
    providers whose breaker is not closed. Both are empty while Redis does not answer."""
    slot = clock.now_ms() // traffic.SLOT_MS
    try:
        sums = _pipelined([store.traffic(slot - past) for past in range(traffic.SLOTS + 1)])
        tripped = [name.split(":", 1) for name in trips(current.redis())]
    except RedisError as error:
        log.warning("the traffic of providers can't be read: %s", error)
        return set(), set()
    failed = {name.removesuffix(":errors") for one in sums for name in one if name.endswith(":errors")}
    return failed | {id for kind, id in tripped if kind == "deployment"}, {
        id for kind, id in tripped if kind == "provider"
    }


def trips(redis: Redis) -> Trips:
    """The circuit breakers that are not closed. Raises `RedisError`."""
    told: dict[str, str] = redis.hgetall(store.BREAKERS)  # type: ignore[assignment]
    return breakers.read_trips(told)


def _seen(ways: Sequence[tuple[str, str]]) -> dict[str, Seen] | None:
    """The traffic of deployments, given with their providers' ids, by deployment id. None while Redis does not answer."""
    try:
        return _read(ways)
    except RedisError as error:
        log.warning("the traffic of providers can't be read: %s", error)
        return None


def _read(ways: Sequence[tuple[str, str]]) -> dict[str, Seen]:
    """Reads the traffic of deployments from Redis, by deployment id. Of those without any it reads no more."""
    if not ways:
        return {}
    slot = clock.now_ms() // traffic.SLOT_MS
    not_closed = trips(current.redis())
    sums = _pipelined([store.traffic(slot - past) for past in range(traffic.SLOTS + 1)])
    counts: dict[str, Counter[str]] = {}
    for one in sums:
        for name, number in one.items():
            id, what = name.rsplit(":", 1)
            counts.setdefault(id, Counter())[what] += int(number)
    tripped = {id: trip for id, provider_id in ways if (trip := breakers.trip_of(not_closed, id, provider_id))}
    called = [id for id, _ in ways if id in counts or id in tripped]
    last = dict(zip(called, _pipelined([store.went(id) for id in called]), strict=True))
    return {id: _told(counts.get(id, Counter()), tripped.get(id), last.get(id, {})) for id, _ in ways}


def _told(counts: Counter[str], trip: breakers.Trip | None, went: dict[str, str]) -> Seen:
    return Seen(
        trip=trip,
        requests=counts["requests"],
        errors=counts["errors"],
        cost_nano=counts["cost"],
        row=int(went.get("row", 0)),
        since_ms=int(went["since"]) if "since" in went else None,
        reason=went.get("reason", ""),
    )


def _pipelined(names: Sequence[str]) -> list[dict[str, str]]:
    """The hashes of these names, by one trip."""
    with current.redis().pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(name)
        return pipe.execute()
