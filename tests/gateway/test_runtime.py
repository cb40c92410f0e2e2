"""What a process holds: a call is settled once and its line is safe, whether the disk or Redis is there or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from hiredis import ReplyError

from app.gateway import runtime as runtimes
from app.gateway.call import Call
from app.gateway.redis_wire import RedisAway
from app.gateway.runtime import MOST_REFUSALS, Runtime, SpoolFull, of_process
from app.metering.reservations import Charge, Hold, Reaped, Refused, Settlement
from app.metering.scopes import ScopeRef
from app.metering.usage import UsageEvent
from config import Config, load
from tests.gateway.dialects.calls import asked, chat

KEY = ScopeRef("key", "k", "k")
CHARGE = Charge(5, 0, 1, 0, 0, True, 1)


class Meter:
    """A meter that does as it is told: it grants or raises, and notes what it was given."""

    def __init__(self) -> None:
        self.trouble: list[BaseException | None] = []
        self.expired: list[UsageEvent] = []
        self.reaped: Reaped | None = None
        self.settled: list[str] = []
        self.late: list[UsageEvent] = []
        self.meanwhile: Any = lambda: None

    def _raise(self) -> None:
        if self.trouble and (trouble := self.trouble.pop(0)) is not None:
            raise trouble

    def reserve(self, id: str, scopes: Any, charge: Charge, event: bytes, query: Any) -> Hold:
        self._raise()
        return held(id)

    def expire_overdue(self) -> list[UsageEvent]:
        return self.expired

    def settle(self, hold: Hold, cost_nano: int, tokens: int, line: bytes, origin: Any, output: Any) -> Settlement:
        self._raise()
        self.settled.append(hold.request_id)
        return Settlement(True, self.reaped)

    def settle_late(self, hold: Hold, event: UsageEvent) -> None:
        self.late.append(event)

    def beat(self, hold: Hold, cost_nano: int, event: bytes) -> bool:
        self._raise()
        self.meanwhile()
        return False


def held(id: str) -> Hold:
    return Hold(id, (), (), [], 0, 5, 0, bounded=False)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": "redis://127.0.0.1:9/0"})


@pytest.fixture
def process(config: Config) -> Iterator[Runtime]:
    """A gateway whose own beats stand still, over a meter that does as it is told."""
    made = Runtime(config)
    made._beats.kill()
    made.meter = Meter()  # type: ignore[assignment]
    yield made
    made.spool.close()
    runtimes._running.remove(made)


@pytest.fixture
def meter(process: Runtime) -> Any:
    return process.meter


def call(id: str = "r") -> Call:
    made = asked(chat())
    made.id, made.hold = id, held(id)
    return made


def lines(process: Runtime) -> list[UsageEvent]:
    """What is in the spool."""
    files = [file for file in process.config.spool_dir.iterdir() if file.is_file()]
    return [msgspec.json.decode(line, type=UsageEvent) for file in files for line in file.read_bytes().splitlines()]


def test_a_call_is_settled_once_and_its_line_is_there_first(process: Runtime, meter: Any) -> None:
    made = call()
    process.begin(made)
    process.settle(made)
    process.settle(made)
    assert meter.settled == ["r"] and [event.request_id for event in lines(process)] == ["r"]
    process._settle_again()
    assert meter.settled == ["r"]


def test_a_settle_that_redis_was_not_there_for_is_repeated_until_it_is_taken(process: Runtime, meter: Any) -> None:
    meter.trouble = [RedisAway("x"), RedisAway("x")]
    process.settle(call())
    assert meter.settled == [] and len(lines(process)) == 1
    with pytest.raises(RedisAway):
        process._settle_again()
    process._settle_again()
    process._settle_again()
    assert meter.settled == ["r"] and len(lines(process)) == 1


def test_a_settle_that_redis_refuses_holds_up_no_other_and_is_left_in_the_end(
    process: Runtime, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(runtimes.time, "monotonic", lambda: now[0])
    meter.trouble = [RedisAway("x"), RedisAway("x"), ReplyError("no"), None]
    process.settle(call("bad"))
    process.settle(call("good"))
    process._settle_again()
    assert meter.settled == ["good"]
    process._settle_again()
    assert meter.settled == ["good"]  # it is not due yet
    meter.trouble = [ReplyError("no")] * (MOST_REFUSALS - 1)
    for refusals in range(1, MOST_REFUSALS):
        now[0] += 2.0**refusals
        process._settle_again()
    assert meter.trouble == []
    now[0] += 1e6
    process._settle_again()
    assert meter.settled == ["good"]


def test_while_the_disk_takes_nothing_nobody_is_let_in_and_what_was_done_is_written_later(
    process: Runtime, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = process.spool.append

    def full(line: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(process.spool, "append", full)
    process.settle(call("first"))
    process.settle(call("second"))
    assert meter.settled == ["first", "second"]  # they are paid for all the same
    with pytest.raises(SpoolFull):
        process.reserve(call("third"), (KEY,), CHARGE)
    monkeypatch.setattr(process.spool, "append", append)
    process._write_again()
    assert [event.request_id for event in lines(process)] == ["first", "second"]
    assert process.reserve(call("third"), (KEY,), CHARGE).request_id == "third"


@pytest.mark.parametrize("reason", ["budget", "parallel"])
def test_a_hold_whose_lease_has_ended_stands_in_nobodys_way(process: Runtime, meter: Any, reason: Any) -> None:
    meter.expired = [call("lost").event()]
    meter.trouble = [Refused(reason, KEY)]
    assert process.reserve(call(), (KEY,), CHARGE).request_id == "r"
    assert [event.request_id for event in lines(process)] == ["lost"]


@pytest.mark.parametrize(("reason", "has_expired"), [("budget", False), ("requests", True), ("unpriced", True)])
def test_a_refusal_stands_where_nothing_was_in_the_way(
    process: Runtime, meter: Any, reason: Any, has_expired: bool
) -> None:
    meter.expired = [call("lost").event()] if has_expired else []
    meter.trouble = [Refused(reason, KEY), None]
    with pytest.raises(Refused):
        process.reserve(call(), (KEY,), CHARGE)
    assert lines(process) == []


def test_what_a_call_cost_beyond_what_the_reaper_charged_is_charged_late(
    process: Runtime, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = call()
    late = msgspec.structs.replace(made.event(), kind="late", cost_nano=7)
    monkeypatch.setattr(made, "late_event", lambda reaped: late if reaped.cost_nano == 3 else None)
    meter.reaped = Reaped(3, 0, 0)
    process.settle(made)
    assert meter.late == [late] and [event.kind for event in lines(process)] == ["usage", "late"]


def test_a_call_whose_hold_is_lost_is_interrupted_and_one_that_has_ended_is_not(process: Runtime, meter: Any) -> None:
    told: list[str] = []
    for ends in (False, True):
        made = call()
        made.interrupt = told.append  # type: ignore[method-assign, assignment]
        meter.meanwhile = lambda made=made, ends=ends: setattr(made, "settled", ends)
        process._beat(made)
    assert told == ["fenced"]
    meter.meanwhile = pytest.fail
    process._beat(made)  # it has ended: nobody is asked


def test_a_beat_that_redis_missed_stops_nobody(process: Runtime, meter: Any) -> None:
    made = call()
    made.interrupt = pytest.fail  # type: ignore[method-assign, assignment]
    meter.trouble = [RedisAway("x")]
    process._beat(made)


def test_a_process_that_ends_stops_the_calls_that_go_on(process: Runtime) -> None:
    told: list[tuple[str, str]] = []
    for id in ("a", "b"):
        made = call(id)
        made.interrupt = lambda reason, id=id: told.append((id, reason))  # type: ignore[method-assign]
        process.begin(made)
    runtimes.drain()
    assert sorted(told) == [("a", "stopping"), ("b", "stopping")]


def test_the_doors_of_a_process_share_one_gateway_and_other_settings_make_another(
    config: Config, tmp_path: Path
) -> None:
    other = load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": "redis://127.0.0.1:9/1"})
    made = of_process(config), of_process(other)
    assert of_process(config) is made[0] is not made[1]
    for one, settings in zip(made, (config, other), strict=True):
        gevent.kill(one._beats)
        one.spool.close()
        runtimes._running.remove(one)
        del runtimes._of_process[id(settings)]
