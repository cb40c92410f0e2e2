"""Adjustments: a counter moves once, from the value that was meant, and the stream is told in the same step."""

from __future__ import annotations

import msgspec
import pytest
import redis

from app import store
from app.ledger import adjustments
from app.ledger.recount import server_run
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from tests.ledger.books import NOON

TOTAL = ("user", "ada", "total")
DAY = ("user", "ada", f"day-{NOON // 1000 // 86_400 * 86_400}")


@pytest.fixture
def wire(redis_url: str) -> redis.Redis:
    """A Redis whose meter is open."""
    client = store.connect(redis_url)
    client.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(client)})
    return client


def adjustment(nano: int, counter: tuple[str, str, str] = TOTAL, **fields: object) -> UsageEvent:
    base = {
        "request_id": new_id(), "attempt": 0, "kind": "credit", "at_ms": NOON, "person_id": "", "model": "", "endpoint": "",
        "api_type": "", "outcome": "ok", "status": 200, "moved_nano": nano, "scopes": (counter,),
    }  # fmt: skip
    return UsageEvent(**{**base, **fields})  # type: ignore[arg-type]


def spent(wire: redis.Redis, counter: tuple[str, str, str] = TOTAL) -> int:
    return int(wire.hget(store.spent(*counter), "spent") or 0)


def stream(wire: redis.Redis) -> list[UsageEvent]:
    return [msgspec.json.decode(fields["e"], type=UsageEvent) for _, fields in wire.xrange(store.USAGE)]


def test_a_counter_moves_and_the_stream_is_told(wire: redis.Redis) -> None:
    wire.hset(store.spent(*TOTAL), "spent", 100)
    event = adjustment(-130)
    assert adjustments.move(wire, event) == "moved"
    assert (spent(wire), stream(wire)) == (-30, [event])


def test_one_that_is_repeated_moves_nothing_more(wire: redis.Redis) -> None:
    event = adjustment(-7)
    assert [adjustments.move(wire, event) for _ in range(2)] == ["moved", "moved"]
    assert (spent(wire), stream(wire)) == (-7, [event])
    assert adjustments.move(wire, adjustment(-7)) == "moved"
    assert spent(wire) == -14
    repair = adjustment(3, request_id=event.request_id, kind="repair")
    assert adjustments.move(wire, repair) == "moved"
    assert spent(wire) == -11, "another kind is another adjustment"


def test_it_moves_only_from_the_value_that_was_meant(wire: redis.Redis) -> None:
    assert adjustments.move(wire, adjustment(5), only_from=0) == "moved", "a counter that is missing has 0"
    assert adjustments.move(wire, adjustment(5), only_from=0) == "changed"
    assert adjustments.move(wire, adjustment(5), only_from=5) == "moved"
    assert (spent(wire), len(stream(wire))) == (10, 2)


def test_a_repetition_is_known_even_when_the_counter_went_on(wire: redis.Redis) -> None:
    event = adjustment(5)
    assert adjustments.move(wire, event, only_from=0) == "moved"
    assert adjustments.move(wire, event, only_from=0) == "moved"
    assert spent(wire) == 5


@pytest.mark.parametrize("meter", [{}, {"epoch": "1", "run_id": "another run"}, {"run_id": "ours"}])
def test_nothing_moves_while_the_meter_is_closed(wire: redis.Redis, meter: dict[str, str]) -> None:
    wire.delete(store.METER)
    if meter:
        ours = {"run_id": server_run(wire)} if meter.get("run_id") == "ours" else {}
        wire.hset(store.METER, mapping=meter | ours)
    assert adjustments.move(wire, adjustment(5)) == "closed"
    assert (spent(wire), stream(wire)) == (0, [])


def test_a_counter_of_a_period_ends_and_one_of_all_time_does_not(wire: redis.Redis) -> None:
    adjustments.move(wire, adjustment(5, DAY))
    adjustments.move(wire, adjustment(5, TOTAL))
    assert 0 < wire.pttl(store.spent(*DAY)) <= adjustments.KEPT_MS
    assert wire.pttl(store.spent(*TOTAL)) == -1
    wire.pexpire(store.spent(*DAY), 60_000)
    adjustments.move(wire, adjustment(5, DAY))
    assert wire.pttl(store.spent(*DAY)) <= 60_000, "the life that it has stays"
