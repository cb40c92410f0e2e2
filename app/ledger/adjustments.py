"""Adjustments: one step moves a counter in Redis and appends the usage event that records it.

Repairs and credits are adjustments: usage events that cost nothing and hold the amount in `moved_nano`.
"""

from __future__ import annotations

from typing import Literal, cast

import msgspec
from redis import Redis

from app import store
from app.ledger.recount import LONGEST_MS, server_run
from app.metering.reservations import TOMBSTONE_MS
from app.metering.usage import UsageEvent

KEPT_MS = LONGEST_MS + 7 * 86_400_000  # the life of a counter that an adjustment creates; one of all time never expires

# KEYS  1 meter  2 counter  3 usage stream  4 tombstone
# ARGV  1 the value that the counter must have, or empty  2 amount to add  3 run id of the server  4 life in ms of a
#       counter without one; 0 never expires  5 the usage event that records it  6 life of the tombstone, ms
# Returns 1 if the counter moved, now or before, 0 if it has another value by now, -1 while the meter is closed.
MOVE = """
local meter = redis.call('HMGET', KEYS[1], 'epoch', 'run_id')
if not meter[1] or meter[2] ~= ARGV[3] then return -1 end
if redis.call('EXISTS', KEYS[4]) == 1 then return 1 end
local spent = redis.call('HGET', KEYS[2], 'spent')
if ARGV[1] ~= '' and (spent or '0') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[2], 'spent', ARGV[2])
if ARGV[4] ~= '0' and redis.call('PTTL', KEYS[2]) == -1 then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
redis.call('SET', KEYS[4], 'moved', 'PX', ARGV[6])
redis.call('XADD', KEYS[3], '*', 'e', ARGV[5])
return 1
"""

Verdict = Literal["moved", "changed", "closed"]
VERDICTS: dict[int, Verdict] = {1: "moved", 0: "changed", -1: "closed"}


def move(redis: Redis, event: UsageEvent, *, only_from: int | None = None) -> Verdict:
    """Add `event.moved_nano` to the one counter that `event` names, and append the event to the stream.

    It acts once for each event id, so that a unit of work can run again. With `only_from`, in nano-units, it moves the
    counter only from that value. Returns "moved", "changed" (the counter has another value) or "closed" (the meter is being
    recounted); the last two move nothing. Raises `RedisError`.
    """
    (counter,) = event.scopes
    life_ms = 0 if counter[2] == "total" else KEPT_MS
    answer = redis.eval(
        MOVE, 4, store.METER, store.spent(*counter), store.USAGE, store.tombstone(f"{event.request_id}:{event.kind}"),
        "" if only_from is None else str(only_from), str(event.moved_nano), server_run(redis), str(life_ms),
        msgspec.json.encode(event), str(TOMBSTONE_MS),
    )  # fmt: skip
    return VERDICTS[cast("int", answer)]
