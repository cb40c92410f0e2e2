"""Recount: after Redis was flushed, restarted or restored, the meter stays closed until its counters are complete.

Spent amounts come from the ledger, once the stream and all spools are posted; held amounts come from the holds that live
workers restore. Meanwhile reserve and settle refuse: they see that the epoch is missing or belongs to another run of the
server.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from redis import Redis, WatchError
from sqlalchemy import select

from app import clock, store
from app.extensions import db
from app.ledger import spools
from app.ledger.budgets import SPENT
from app.ledger.entries import ENTRY
from app.ledger.posting import known_requests
from app.metering.outbox import REAPER
from app.metering.reservations import LEASE_MS, LOST, REAPED_MS, TOMBSTONE_MS, Reaped
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id

# How long workers have to restore their holds: one that is silent for a whole lease has lost them anyway.
PATIENCE_S = LEASE_MS / 1000
LOCK_S = 120
CHUNK = 1000
# No period is longer than a month; two more days for time zones and late settles.
LONGEST_MS = 33 * 86_400_000
RECENT_MS = 120_000
COUNTED = "counted"  # the tombstone of a request that is in the ledger

log = structlog.get_logger(__name__)


def is_open(redis: Redis) -> bool:
    """Whether the meter's counters belong to this run of the server. Raises `RedisError`."""
    epoch, run_id = redis.hmget(store.METER, "epoch", "run_id")
    return epoch is not None and _text(run_id) == server_run(redis)


def server_run(redis: Redis) -> str:
    """The server's run id, which changes when it restarts."""
    return str(redis.info("server")["run_id"])


def recount(
    redis: Redis,
    spool_dir: Path,
    drain: Callable[[], None],
    post: Callable[[list[UsageEvent]], None],
    lines: Callable[[Path], Iterable[UsageEvent]],
    others: Collection[str] = (),
) -> bool:
    """Recount everything and open the meter; return False if another process is recounting, or Redis was lost again.

    Each of the hosts `others` must have called `take_part` meanwhile, or is waited for in vain for a lease. `drain` posts the
    whole stream, `post` posts spooled events, `lines` reads a spool file. Raises `RedisError` and SQLAlchemy's errors; then
    the meter is still closed, and the recount can be repeated.
    """
    with _alone(redis) as alone:
        if not alone:
            return False
        began = time.monotonic()
        count, run_id = new_id(), server_run(redis)
        with redis.pipeline(transaction=True) as pipe:
            pipe.hdel(store.METER, "epoch", "run_id")
            pipe.hset(store.METER, "counting", count)
            pipe.execute()
        drain()
        _wait_for_workers(redis, spool_dir, count)
        _wait_for_hosts(redis, count, others)
        drain()
        spooled = _post_spools(spool_dir, post, lines)
        _bury_holds(redis, dict.fromkeys(spooled, COUNTED) | _booked_lately())
        counters = _booked()
        held = _held(redis)
        opened = _open(redis, count, run_id, counters, held)
        log.info(
            "the meter was recounted",
            counters=len(counters),
            holds=sum(1 for _ in held),
            seconds=round(time.monotonic() - began, 3),
            opened=opened,
        )
        return opened


def take_part(
    redis: Redis,
    spool_dir: Path,
    host: str,
    post: Callable[[list[UsageEvent]], None],
    lines: Callable[[Path], Iterable[UsageEvent]],
) -> None:
    """For the recount that another host makes: post this host's spools once its workers have restored their holds."""
    count = _text(redis.hget(store.METER, "counting"))
    if not count or redis.sismember(store.hosts_counted(count), host):
        return
    _wait_for_workers(redis, spool_dir, count)
    _bury_holds(redis, dict.fromkeys(_post_spools(spool_dir, post, lines), COUNTED))
    with redis.pipeline(transaction=True) as pipe:
        pipe.sadd(store.hosts_counted(count), host)
        pipe.expire(store.hosts_counted(count), LOCK_S)
        pipe.execute()


@contextmanager
def _alone(redis: Redis) -> Iterator[bool]:
    name = f"{store.TAG}:recount"
    token = new_id()
    if not redis.set(name, token, nx=True, ex=LOCK_S):
        yield False
        return
    try:
        yield True
    finally:
        if _text(redis.get(name)) == token:
            redis.delete(name)


def _wait_for_workers(redis: Redis, spool_dir: Path, count: str) -> None:
    """Wait until every process with an open spool file has restored its holds, or has been silent for a lease."""
    deadline = time.monotonic() + PATIENCE_S
    while waiting := _writers(spool_dir) - {_text(name) for name in redis.smembers(store.counted(count))}:
        if time.monotonic() > deadline:
            log.error("workers did not report their holds", spools=sorted(waiting))
            return
        time.sleep(0.05)


def _wait_for_hosts(redis: Redis, count: str, others: Collection[str]) -> None:
    """Wait until every other host has taken part, or has been silent for a lease."""
    deadline = time.monotonic() + PATIENCE_S
    while waiting := set(others) - {_text(name) for name in redis.smembers(store.hosts_counted(count))}:
        if time.monotonic() > deadline:
            log.error("hosts did not report their spools", hosts=sorted(waiting))
            return
        time.sleep(0.05)


def _writers(spool_dir: Path) -> set[str]:
    """The names of the spool files with a live writer; the reaper's is left out, as it holds no money."""
    return {
        path.name for path in spools.files(spool_dir) if not path.name.startswith(REAPER) and spools.is_written(path)
    }


def _post_spools(
    spool_dir: Path,
    post: Callable[[list[UsageEvent]], None],
    lines: Callable[[Path], Iterable[UsageEvent]],
) -> set[str]:
    """Post all spooled events; return the ids of requests whose settle can still arrive and must find a tombstone."""
    recent_ms = clock.now_ms() - RECENT_MS
    unsettled: set[str] = set()
    for path in spools.files(spool_dir):
        events = list(lines(path))
        unsettled |= {event.request_id for event in events if event.at_ms + event.duration_ms >= recent_ms}
        for start in range(0, len(events), CHUNK):
            chunk = events[start : start + CHUNK]
            ids = {event.request_id for event in chunk}
            unsettled |= ids - known_requests(ids)
            post(chunk)
    return unsettled


def _bury_holds(redis: Redis, tombstones: Mapping[str, str]) -> None:
    """Replace holds with tombstones, given by request id."""
    ids = sorted(tombstones)
    for start in range(0, len(ids), CHUNK):
        with redis.pipeline(transaction=False) as pipe:
            for id in ids[start : start + CHUNK]:
                life_ms = TOMBSTONE_MS if tombstones[id] == COUNTED else REAPED_MS
                pipe.set(store.tombstone(id), tombstones[id], px=life_ms)
                pipe.delete(store.hold(id))
                pipe.zrem(store.LEASES, id)
            pipe.execute()


def _booked_lately() -> dict[str, str]:
    """Tombstones for recent requests in the ledger, by request id. A request that the reaper settled stays settled when its
    worker wakes up, and only later usage is charged then."""
    now_ms = clock.now_ms()
    usage = select(ENTRY.c.request_id).where(ENTRY.c.kind == "usage")
    reaped = (
        select(ENTRY.c.request_id, ENTRY.c.cost_nano, ENTRY.c.prompt_tokens, ENTRY.c.completion_tokens)
        .where(ENTRY.c.kind == "usage", ENTRY.c.outcome == LOST["outcome"], ENTRY.c.error_code == LOST["error_code"])
        .where(ENTRY.c.at_ms >= now_ms - REAPED_MS)
    )
    with db.engine.connect() as connection:
        tombstones = dict.fromkeys(connection.scalars(usage.where(ENTRY.c.at_ms >= now_ms - TOMBSTONE_MS)), COUNTED)
        for id, *charged in connection.execute(reaped):
            tombstones[id] = Reaped(*charged).tombstone
    return tombstones


def _booked() -> dict[str, int]:
    """Nano-units spent by every counter that may still be running, by its Redis key."""
    since_s = clock.now_s() - LONGEST_MS // 1000
    query = select(SPENT.c.kind, SPENT.c.id, SPENT.c.period, SPENT.c.spent_nano)
    with db.engine.connect() as connection:
        return {
            store.spent(kind, id, period): spent
            for kind, id, period, spent in connection.execute(query)
            if period == "total" or int(period.rpartition("-")[2]) >= since_s
        }


def _held(redis: Redis) -> dict[str, int]:
    """Nano-units held in each counter by the existing holds, by Redis key. Removes leases without a hold."""
    held: dict[str, int] = defaultdict(int)
    ids = [_text(id) for id in redis.zrange(store.LEASES, 0, -1)]
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        booked = known_requests(chunk)
        _bury_holds(redis, dict.fromkeys(booked, COUNTED))  # a stale copy of Redis can contain holds settled long ago
        with redis.pipeline(transaction=False) as pipe:
            for id in chunk:
                pipe.hmget(store.hold(id), "amount", "keys")
            answers = pipe.execute()
        for id, (amount, keys) in zip(chunk, answers, strict=True):
            if keys is None:
                redis.zrem(store.LEASES, id)
                continue
            for spent_key in _text(keys).split("\n")[1::3]:
                held[spent_key] += int(amount)
    return held


def _open(redis: Redis, count: str, run_id: str, spent: dict[str, int], held: dict[str, int]) -> bool:
    """Write the counters, remove stale ones and open the meter; return False if the server was lost again meanwhile."""
    stale = {_text(name) for name in redis.scan_iter(match=store.spent("*", "*", "*"), count=CHUNK)}
    names = sorted(spent.keys() | held.keys())
    for start in range(0, len(names), CHUNK):
        with redis.pipeline(transaction=False) as pipe:
            for name in names[start : start + CHUNK]:
                pipe.hset(name, mapping={"spent": spent.get(name, 0), "held": held.get(name, 0)})
                if not name.endswith(":total"):
                    pipe.pexpire(name, LONGEST_MS + 7 * 86_400_000)
            pipe.execute()
    gone = sorted(stale - set(names))
    for start in range(0, len(gone), CHUNK):
        redis.delete(*gone[start : start + CHUNK])
    with redis.pipeline(transaction=True) as pipe:
        try:
            pipe.watch(store.METER)  # type: ignore[no-untyped-call]
            if _text(pipe.hget(store.METER, "counting")) != count or server_run(redis) != run_id:
                return False
            pipe.multi()
            # Holds of live calls are restored, so the meter need not wait for others.
            pipe.hset(store.METER, mapping={"epoch": count, "run_id": run_id, "patient": 0})
            pipe.hdel(store.METER, "counting")
            pipe.delete(store.counted(count))
            pipe.execute()
        except WatchError:
            return False
    return True


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else (value or "")
