"""Circuit breakers: when they open, for how long, and that all processes know the same of them."""

from __future__ import annotations

from typing import Any

import gevent
import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app import store
from app.gateway.breakers import (
    IN_A_ROW,
    MOST_REST_S,
    QUICK_MS,
    SLOW_MS,
    Breakers,
    Trip,
    deployment_breaker,
    opened,
    provider_breaker,
    read_trips,
    rested,
    trip_of,
)
from app.gateway.redis_wire import RedisAway
from app.providers.base import UpstreamError

REFUSED_CONNECTION = UpstreamError("The provider can't be reached.", unreachable=True)
HUNG = UpstreamError("The provider did not answer in time.", timed_out=True)
FAILED = UpstreamError("broken", status=500)
BUSY = UpstreamError("slow down", status=429, retry_after_s=20)
BAD_REQUEST = UpstreamError("no such tool", status=400, refused=True)


class Time:
    """The clock, as a test sets it."""

    ms = 1_000_000

    def now_ns(self) -> int:
        return self.ms * 1_000_000


@pytest.fixture
def time(monkeypatch) -> Time:
    made = Time()
    monkeypatch.setattr("app.clock.now_ns", made.now_ns)
    return made


@pytest.fixture
def breakers(redis_url: str, time: Time) -> Breakers:
    return Breakers(redis.Redis.from_url(redis_url).execute_command)


def another(redis_url: str) -> Breakers:
    """The breakers of another process, once it has heard of the present version."""
    client = redis.Redis.from_url(redis_url)
    made = Breakers(lambda *command: _flat(client.execute_command(*command)))
    made.refresh((client.get(store.BREAKERS_VERSION) or b"").decode())
    return made


def _flat(reply: Any) -> Any:
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply


def fail(breakers: Breakers, error: UpstreamError, times: int = 1, began_ms: int = 0) -> None:
    for _ in range(times):
        breakers.failed("d", "p", error, began_ms)
    breakers.publish()


def test_a_timeout_opens_the_breaker_of_its_deployment_immediately(breakers, time) -> None:
    fail(breakers, HUNG)
    trip = trip_of(breakers.trips, "d", "p")
    assert trip is not None and trip.until_ms - time.ms == SLOW_MS[0] and trip.is_open(time.ms)
    assert trip_of(breakers.trips, "other", "p") is None


def test_a_failed_connection_opens_the_breaker_of_the_whole_provider(breakers) -> None:
    fail(breakers, REFUSED_CONNECTION)
    assert trip_of(breakers.trips, "other", "p") is not None
    assert trip_of(breakers.trips, "d", "another") is None


def test_other_failures_open_a_breaker_when_they_come_in_a_row(breakers) -> None:
    fail(breakers, FAILED, IN_A_ROW - 1)
    breakers.succeeded("d")
    fail(breakers, FAILED, IN_A_ROW - 1)
    assert not breakers.trips
    fail(breakers, FAILED)
    assert set(breakers.trips) == {deployment_breaker("d")}


def test_a_request_that_was_judged_bad_is_no_failure_and_closes_a_breaker(breakers, time) -> None:
    fail(breakers, BAD_REQUEST, 2 * IN_A_ROW)
    assert not breakers.trips
    fail(breakers, HUNG)
    time.ms += SLOW_MS[0]
    fail(breakers, BAD_REQUEST, began_ms=time.ms)
    assert not breakers.trips


def test_a_deployment_rests_as_long_as_it_asks_up_to_a_cap(breakers, time) -> None:
    fail(breakers, BUSY)
    (trip,) = breakers.trips.values()
    assert (trip.until_ms - time.ms, trip.times) == (20_000, 0)
    breakers.failed("e", "p", UpstreamError("", status=429, retry_after_s=3600), 0)
    assert breakers.trips[deployment_breaker("e")].until_ms - time.ms == MOST_REST_S * 1000


def test_an_answer_closes_what_opened_before_its_attempt_began(breakers, time) -> None:
    fail(breakers, HUNG)
    breakers.answered("d", "p", time.ms - 1)  # it was on its way already
    assert breakers.trips
    breakers.answered("d", "p", time.ms + 1)
    assert not breakers.trips


def test_a_deployment_hangs_that_answered_nobody_while_it_was_waited_for(breakers, time) -> None:
    own = deployment_breaker("d")
    breakers.answered("d", "p", time.ms - 60_000)
    fail(breakers, HUNG, began_ms=time.ms - 30_000)  # it answered another in between
    assert not breakers.trips[own].hangs
    time.ms = breakers.trips[own].until_ms
    fail(breakers, HUNG, began_ms=time.ms)
    assert breakers.trips[own].hangs and breakers.trips[own].times == 2
    breakers.answered("d", "p", time.ms - 1)  # one that was on its way
    assert not breakers.trips[own].hangs and breakers.trips[own].is_open(time.ms)


def test_only_what_is_waited_for_hangs(breakers) -> None:
    fail(breakers, FAILED, IN_A_ROW)
    fail(breakers, REFUSED_CONNECTION)
    breakers.failed("e", "p", BUSY, 0)
    assert not any(trip.hangs for trip in breakers.trips.values())
    breakers.failed("f", "q", UpstreamError("no way there", unreachable=True, timed_out=True), 0)
    assert breakers.trips[provider_breaker("q")].hangs


def test_failures_that_were_on_their_way_do_not_prolong_the_time(breakers, time) -> None:
    fail(breakers, HUNG, times=50)
    assert breakers.trips[deployment_breaker("d")].times == 1


def test_each_failed_probe_doubles_the_time_up_to_a_cap(breakers, time) -> None:
    spans = []
    for _ in range(8):
        fail(breakers, REFUSED_CONNECTION)
        trip = breakers.trips[provider_breaker("p")]
        spans.append(trip.until_ms - time.ms)
        time.ms = trip.until_ms
    first, longest = QUICK_MS
    assert spans == [min(first * 2**n, longest) for n in range(8)]


def test_what_one_process_opens_and_closes_another_knows(redis_url, breakers, time) -> None:
    fail(breakers, HUNG)
    fail(breakers, REFUSED_CONNECTION)
    assert another(redis_url).trips == breakers.trips != {}
    breakers.answered("d", "p", time.ms + 1)
    breakers.publish()
    assert another(redis_url).trips == {}


def test_what_redis_did_not_take_is_told_later_and_not_forgotten_by_a_refresh(redis_url, time) -> None:
    client = redis.Redis.from_url(redis_url)
    away = True

    def send(*command: Any) -> Any:
        if away and command[0] != "HGETALL":
            raise RedisAway
        return _flat(client.execute_command(*command))

    breakers = Breakers(send)
    fail(breakers, HUNG)
    breakers.refresh("another version")
    assert breakers.trips and not client.hgetall(store.BREAKERS)
    away = False
    breakers.publish()
    assert another(redis_url).trips == breakers.trips


def test_a_breaker_that_nobody_asks_for_any_more_is_forgotten(redis_url, breakers, time) -> None:
    fail(breakers, HUNG)
    time.ms += 2 * 3_600_000
    later = another(redis_url)
    assert later.trips == {}
    later.publish()
    assert redis.Redis.from_url(redis_url).hgetall(store.BREAKERS) == {}


def test_a_changed_provider_begins_anew(breakers) -> None:
    fail(breakers, HUNG)
    fail(breakers, REFUSED_CONNECTION)
    breakers.forget("p", ["d"])
    assert not breakers.trips


def test_a_trip_that_cannot_be_read_is_left_out() -> None:
    good = Trip(since_ms=1, at_ms=1, until_ms=2, reason="")
    assert read_trips({b"a": msgspec.json.encode(good), b"b": b"{", "c": '{"until_ms": "soon"}'}) == {"a": good}


def test_one_reads_a_new_version_for_all_that_wait(redis_url) -> None:
    reads = []

    def send(*command: Any) -> Any:
        reads.append(command[0])
        gevent.sleep(0.01)
        return []

    breakers = Breakers(send)
    gevent.joinall([gevent.spawn(breakers.refresh, "2") for _ in range(20)], raise_error=True)
    assert reads == ["HGETALL"]


TRIPS = st.none() | st.builds(
    lambda since, more, span, times: Trip(
        since_ms=since, at_ms=since + more, until_ms=since + more + span, reason="", times=times
    ),
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 60),
)  # fmt: skip


@given(
    before=TRIPS,
    now_ms=st.integers(0, 4 * 10**6),
    wait_s=st.floats(0, 10**6),
    span=st.sampled_from((QUICK_MS, SLOW_MS)),
)
def test_no_failure_keeps_a_deployment_away_for_longer_than_the_cap(before, now_ms, wait_s, span) -> None:
    for after, most_ms in (
        (opened(before, now_ms, "why", span), span[1]),
        (rested(before, now_ms, wait_s, "why"), MOST_REST_S * 1000),
    ):
        assert after.until_ms >= (before.until_ms if after is before else now_ms)
        assert after is before or after.until_ms - now_ms <= most_ms
        assert after.since_ms == (before.since_ms if before else now_ms)
