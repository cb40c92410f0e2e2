"""Usage on its way into the books, as the tests of the drainer's parts put it there and look at it."""

from __future__ import annotations

from pathlib import Path

import redis
from sqlalchemy import select

from app import store
from app.extensions import db
from app.jobs.stream import Stream
from app.ledger.entries import DeadLetter
from app.ledger.recount import server_run
from app.metering.reservations import Meter
from app.metering.usage import UsageEvent
from tests.ledger.books import encode


def send(wire: redis.Redis, events: list[UsageEvent]) -> None:
    with wire.pipeline(transaction=False) as pipe:
        for told in events:
            pipe.xadd(store.USAGE, {"e": encode(told)})
        pipe.execute()


def drain_all(stream: Stream) -> int:
    total = 0
    while taken := stream.drain(block_ms=10):
        total += taken
    return total


def letters() -> list[DeadLetter]:
    db.session.rollback()
    return list(db.session.scalars(select(DeadLetter)))


def spool(folder: Path, *lines: bytes, name: str = "1-1") -> Path:
    """A spool file of a process that is gone."""
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def line(told: UsageEvent) -> bytes:
    return encode(told) + b"\n"


def spent(wire: redis.Redis) -> int:
    return int(wire.hget(store.spent("organisation", "default", "total"), "spent") or 0)


def the_meter(wire: redis.Redis) -> Meter:
    return Meter(wire.execute_command, lambda: server_run(wire))


class Expiring(Meter):
    """A meter that notes what it is asked."""

    def __init__(self, wire: redis.Redis) -> None:
        super().__init__(wire.execute_command, lambda: server_run(wire))
        self.asked: list[str] = []

    def expire(self, request_id: str) -> None:
        self.asked.append(request_id)
        if request_id == "bad":
            raise ValueError("no such event")

    def settle_event(self, told: UsageEvent) -> bool:
        return True
