"""Circuit breakers: deployments and providers that are left alone for a while because asking them failed.

                   fails                      the time is over
      closed  ───────────────▶  open  ──────────────────────────▶  half-open
         ▲                        ▲         the probe failed           │
         │                        └────────── (twice as long) ─────────┤
         └───────────────────── an attempt was answered ───────────────┘

One failed connection opens the breaker of the whole provider, one timeout that of the deployment, and so do three other
failures in a row. A deployment hangs that answered nobody while a call waited for it in vain: that costs each call its
deadline, so that it is left alone even where no other is well. A 429 with `Retry-After` lets a deployment rest. Each process
judges by its own attempts, immediately. What it opens or closes it writes into a hash in Redis, beside the request, and gives
the hash a new version. Each reserve answers that version, so that all processes know before they route their next call. The
same reserve gives one call in all processes the probe of a half-open breaker; one that hangs is asked for its list of models
first (`app.gateway.probes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gevent
import msgspec
import structlog
from gevent.lock import BoundedSemaphore
from hiredis import ReplyError

from app import clock, store
from app.gateway.redis_wire import RedisAway
from app.gateway.traffic import Traffic
from app.providers.base import UpstreamError
from app.runtime.ids import new_id

log = structlog.get_logger("gateway.breakers")

IN_A_ROW = 3  # failures that open a deployment's breaker
QUICK_MS = (5_000, 60_000)  # how long it is open at first and at the most, where a failure costs no time
SLOW_MS = (30_000, 300_000)  # ... and where each failure was waited for
MOST_REST_S = 60.0  # of what `Retry-After` asks for
FORGOTTEN_MS = 3_600_000  # after its time is over
MOST_ROWS = 10_000
UNREAD = "unread"


class Trip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breaker that is open until `until_ms`, and half-open after that. `at_ms` is when it opened last, `since_ms` when
    it left its closed state; `times` counts the openings in between, 0 for a deployment that only rests. `hangs` tells
    that its failures are waited for, and that nothing was answered meanwhile or since; `listed` that its upstream has
    answered since when it was asked for its list of models, so that a call may try it."""

    since_ms: int
    at_ms: int
    until_ms: int
    reason: str
    times: int = 0
    hangs: bool = False
    listed: bool = False

    def is_open(self, now_ms: int) -> bool:
        return now_ms < self.until_ms


Trips = Mapping[str, Trip]  # by breaker: the name of a deployment's or a provider's


def deployment_breaker(id: str) -> str:
    return f"deployment:{id}"


def provider_breaker(id: str) -> str:
    return f"provider:{id}"


def trip_of(trips: Trips, deployment_id: str, provider_id: str) -> Trip | None:
    """What keeps a deployment from being used: its own trip or its provider's, the one that lasts longer."""
    own, whole = trips.get(deployment_breaker(deployment_id)), trips.get(provider_breaker(provider_id))
    if own is None or whole is None:
        return own or whole
    return own if own.until_ms >= whole.until_ms else whole


def opened(
    before: Trip | None, now_ms: int, reason: str, span_ms: tuple[int, int] = QUICK_MS, *, hangs: bool = False
) -> Trip:
    """The breaker after a failure: open for twice as long each time, within `span_ms`. A failure that was on its way when
    the breaker opened changes nothing."""
    if before is not None and before.times and before.is_open(now_ms):
        return before
    times = (before.times if before else 0) + 1
    first, longest = span_ms
    return Trip(
        since_ms=before.since_ms if before else now_ms,
        at_ms=now_ms,
        until_ms=now_ms + min(first << min(times - 1, 30), longest),
        reason=reason,
        times=times,
        hangs=hangs,
    )


def rested(before: Trip | None, now_ms: int, wait_s: float, reason: str) -> Trip:
    """The breaker of a deployment that asked to be left alone for `wait_s`."""
    until_ms = now_ms + round(min(wait_s, MOST_REST_S) * 1000)
    if before is not None and before.until_ms >= until_ms:
        return before
    since_ms, times = (before.since_ms, before.times) if before else (now_ms, 0)
    return Trip(since_ms=since_ms, at_ms=now_ms, until_ms=until_ms, reason=reason, times=times)


class Breakers:
    """The breakers as one process knows them."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self.traffic = Traffic(send)
        self.trips: dict[str, Trip] = {}  # those that are not closed
        self._rows: dict[str, int] = {}  # failures in a row, by deployment
        self._answered_ms: dict[str, int] = {}  # when an answer began last, by deployment
        self._changes: dict[str, Trip | None] = {}  # what Redis has not been told yet
        self._version = ""
        self._reading = BoundedSemaphore()
        self._publishing = BoundedSemaphore()

    def failed(
        self, deployment_id: str, provider_id: str, error: UpstreamError, began_ms: int, cost_nano: int = 0
    ) -> None:
        """An attempt that began at `began_ms`, or whose answer did, failed, having cost so much that nobody pays for."""
        if error.refused:  # it judged the request, so it is well
            self.answered(deployment_id, provider_id, began_ms)
            self.succeeded(deployment_id)
            return
        self.traffic.failed(deployment_id, error.message, cost_nano)
        now_ms, own = clock.now_ms(), deployment_breaker(deployment_id)
        hangs = error.timed_out and self._answered_ms.get(deployment_id, 0) <= began_ms
        before = self.trips.get(own)
        if error.unconnected:
            whole = provider_breaker(provider_id)
            span = SLOW_MS if error.timed_out else QUICK_MS
            self._set(whole, opened(self.trips.get(whole), now_ms, error.message, span, hangs=hangs))
        elif error.timed_out:
            self._set(own, opened(before, now_ms, error.message, SLOW_MS, hangs=hangs))
        elif error.status == 429 and error.retry_after_s is not None:
            self._set(own, rested(before, now_ms, error.retry_after_s, error.message))
        else:
            row = self._rows.get(deployment_id, 0) + 1
            if len(self._rows) >= MOST_ROWS:
                self._rows.clear()
            self._rows[deployment_id] = row
            whole_trip = self.trips.get(provider_breaker(provider_id))
            if row >= IN_A_ROW or before is not None or whole_trip is not None:
                self._set(own, opened(before, now_ms, error.message))
            if whole_trip is not None and not whole_trip.is_open(now_ms):  # it can be reached again
                self._set(provider_breaker(provider_id), None)

    def answered(self, deployment_id: str, provider_id: str, began_ms: int) -> None:
        """The first byte of an answer came, to an attempt that began at `began_ms`: closes what opened before that. What
        opened since stays open, but does not hang."""
        if len(self._answered_ms) >= MOST_ROWS:
            self._answered_ms.clear()
        self._answered_ms[deployment_id] = clock.now_ms()
        if not self.trips:
            return
        for name in (deployment_breaker(deployment_id), provider_breaker(provider_id)):
            trip = self.trips.get(name)
            if trip is not None and trip.at_ms <= began_ms:
                self._set(name, None)
            elif trip is not None and trip.hangs:
                self._set(name, msgspec.structs.replace(trip, hangs=False))

    def listed(self, name: str, error: UpstreamError | None) -> bool:
        """The upstream behind this breaker was asked for its list of models: it may be tried by a call, or is left alone for
        longer. Which of them."""
        trip = self.trips.get(name)
        if trip is None:
            return True
        is_dead = error is not None and (error.timed_out or error.unconnected)
        if error is not None and is_dead:
            span = SLOW_MS if error.timed_out else QUICK_MS
            self._set(name, opened(trip, clock.now_ms(), error.message, span, hangs=error.timed_out))
        else:
            self._set(name, msgspec.structs.replace(trip, listed=True))
        return not is_dead

    def succeeded(self, deployment_id: str) -> None:
        """An answer came whole."""
        self.traffic.succeeded(deployment_id)
        if self._rows:
            self._rows.pop(deployment_id, None)

    def forget_rows(self) -> None:
        """Deployments and providers may have changed."""
        self._rows.clear()

    def forget(self, provider_id: str, deployment_ids: list[str]) -> None:
        """A provider was changed, which may have mended it."""
        for name in (provider_breaker(provider_id), *map(deployment_breaker, deployment_ids)):
            if name in self.trips:
                self._set(name, None)

    def give_back(self, name: str) -> None:
        """The call that had this breaker's probe found nothing out."""
        gevent.spawn(self._give_back, name)

    def _give_back(self, name: str) -> None:
        try:
            self._send("DEL", store.probe(name))
        except _NOT_TAKEN as error:
            log.warning("a probe could not be given back", breaker=name, reason=str(error))

    def _set(self, name: str, trip: Trip | None) -> None:
        before = self.trips.get(name)
        if trip is before:
            return
        if trip is None:
            del self.trips[name]
            log.info("a circuit breaker closed", breaker=name)
        else:
            self.trips[name] = trip
            if before is None or trip.at_ms != before.at_ms:
                seconds = (trip.until_ms - trip.at_ms) / 1000
                log.warning("a circuit breaker opened", breaker=name, seconds=seconds, reason=trip.reason)
        self._changes[name] = trip
        gevent.spawn(self.publish)

    def publish(self) -> None:
        """Tell Redis what changed here. What it does not take is told again, by the process's beat."""
        with self._publishing:
            changes = dict(self._changes)
            if not changes:
                return
            try:
                for name, trip in changes.items():
                    if trip is None:
                        self._send("HDEL", store.BREAKERS, name)
                    else:
                        self._send("HSET", store.BREAKERS, name, msgspec.json.encode(trip))
                self._send("SET", store.BREAKERS_VERSION, new_id())
                self._version = UNREAD  # others may have written in between
                # The probe of what may be tried now stays with the call that has it.
                if ended := [store.probe(name) for name, trip in changes.items() if trip is None or not trip.listed]:
                    self._send("DEL", *ended)
            except _NOT_TAKEN as error:
                log.warning("a circuit breaker could not be shared", reason=str(error))
                return
            for name, trip in changes.items():
                if self._changes.get(name) is trip:
                    del self._changes[name]

    def refresh(self, version: str) -> None:
        """Read what other processes know, if it has another version than the one that was read. One reads for all."""
        if version == self._version:
            return
        with self._reading:
            if version == self._version:
                return
            try:
                told = self._send("HGETALL", store.BREAKERS)
            except _NOT_TAKEN as error:
                log.warning("the circuit breakers could not be read", reason=str(error))
                return
            now_ms = clock.now_ms()
            trips = read_trips(dict(zip(told[::2], told[1::2], strict=True)))
            for name, trip in list(trips.items()):
                if trip.until_ms + FORGOTTEN_MS < now_ms:
                    del trips[name]
                    self._changes.setdefault(name, None)
            for name, change in self._changes.items():
                if change is None:
                    trips.pop(name, None)
                else:
                    trips[name] = change
            self.trips, self._version = trips, version


_NOT_TAKEN = (RedisAway, ReplyError)


def read_trips(told: Mapping[Any, Any]) -> dict[str, Trip]:
    """The trips in the hash `store.BREAKERS`. What can't be read, as of another version of Portico, is left out."""
    trips = {}
    for name, text in told.items():
        try:
            trips[name.decode() if isinstance(name, bytes) else name] = msgspec.json.decode(text, type=Trip)
        except msgspec.DecodeError as error:
            log.warning("a circuit breaker can't be read", breaker=str(name), reason=str(error))
    return trips
