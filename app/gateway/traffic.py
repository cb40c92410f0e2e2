"""How the attempts at each deployment went, also those that a fallback rescued: from this the health of providers is told.

A process counts and tells Redis the sums once a second. They are kept by five minutes, for an hour and a little more, and of
each deployment beside how many attempts failed in a row, since when, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app import clock, store

SLOT_MS = 300_000
SLOTS = 12  # an hour
SLOT_LIFE_S = 4_500
LIFE_S = 86_400

# KEYS  1 the sums of the present five minutes, then the record of each deployment
# ARGV  1 life of the sums, seconds  2 life of a record, then for each deployment: its id, attempts, failed ones, their cost in
#       nano-units, 1 if one went well, how many failed after that, when the first of those did (ms), why, now (ms)
# In a record `since` tells since when attempts have gone as they go now: well, or not.
TELL = """
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 9
  local id, row, now = ARGV[at], tonumber(ARGV[at + 5]), ARGV[at + 8]
  for place, field in ipairs({'requests', 'errors', 'cost'}) do
    if ARGV[at + place] ~= '0' then redis.call('HINCRBY', KEYS[1], id .. ':' .. field, ARGV[at + place]) end
  end
  local before = tonumber(redis.call('HGET', KEYS[i], 'row'))
  if ARGV[at + 4] == '1' and before ~= 0 then
    before = 0
    redis.call('HSET', KEYS[i], 'since', now)
  end
  before = before or 0
  if row > 0 then
    redis.call('HSET', KEYS[i], 'reason', ARGV[at + 7])
    if before == 0 then redis.call('HSET', KEYS[i], 'since', ARGV[at + 6]) end
  end
  redis.call('HSET', KEYS[i], 'row', before + row)
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class _Sum(msgspec.Struct):
    requests: int = 0
    errors: int = 0
    cost_nano: int = 0
    went_well: bool = False
    row: int = 0
    since_ms: int = 0
    reason: str = ""


class Traffic:
    """What one process has not told yet."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._sums: dict[str, _Sum] = {}  # by deployment

    def _of(self, deployment_id: str) -> _Sum:
        found = self._sums.get(deployment_id)
        if found is None:
            found = self._sums[deployment_id] = _Sum()
        return found

    def asked(self, deployment_id: str) -> None:
        """An attempt began to be answered, or failed before."""
        self._of(deployment_id).requests += 1

    def failed(self, deployment_id: str, reason: str, cost_nano: int = 0) -> None:
        """An attempt failed, having cost so much that nobody pays for."""
        found = self._of(deployment_id)
        if not found.row:
            found.since_ms = clock.now_ms()
        found.errors += 1
        found.row += 1
        found.cost_nano += cost_nano
        found.reason = reason

    def succeeded(self, deployment_id: str) -> None:
        """An attempt was answered whole."""
        found = self._of(deployment_id)
        found.went_well, found.row = True, 0

    def tell(self) -> None:
        """Give Redis what was counted since the last time. Raises what `send` raises; then it is told with the next."""
        if not self._sums:
            return
        sums, self._sums = self._sums, {}
        now_ms = clock.now_ms()
        arguments: list[str | int] = []
        for id, one in sums.items():
            arguments += [
                id, one.requests, one.errors, one.cost_nano, int(one.went_well), one.row, one.since_ms, one.reason, now_ms,
            ]  # fmt: skip
        keys = [store.traffic(now_ms // SLOT_MS), *map(store.went, sums)]
        try:
            self._send("EVAL", TELL, len(keys), *keys, SLOT_LIFE_S, LIFE_S, *arguments)
        except BaseException:
            for id, later in self._sums.items():
                _add(sums.setdefault(id, _Sum()), later)
            self._sums = sums
            raise


def _add(one: _Sum, later: _Sum) -> None:
    one.requests += later.requests
    one.errors += later.errors
    one.cost_nano += later.cost_nano
    if later.went_well:
        one.went_well, one.row = True, 0
    if later.row:
        one.since_ms = one.since_ms if one.row else later.since_ms
        one.reason = later.reason
    one.row += later.row
