"""How the calls of each key began, by client, so that people see whether a client is connected, and if not, why.

A process notes the first call that was answered and the last one that was refused, of each key and client, and tells Redis once
a second. What was answered is told once an hour: a busy key costs one look into a set. A flood fills nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app import clock, store
from app.directory import CallerRecord
from app.gateway.errors import ApiError
from app.metering.usage import LastCall
from app.runtime.agents import Agent

HOUR_MS = 3_600_000
LIFE_S = 30 * 86_400
KEPT = 500  # of one second
REMEMBERED = 20_000  # that are told
LONGEST_MESSAGE = 1_000  # characters

# KEYS  a hash a key  ARGV  1 life, seconds; then for each hash: a field and its value. The first call that was answered stays.
TELL = """
for i, key in ipairs(KEYS) do
  local field, value = ARGV[2 * i], ARGV[2 * i + 1]
  redis.call(string.sub(field, 1, 3) == 'ok:' and 'HSETNX' or 'HSET', key, field, value)
  redis.call('EXPIRE', key, ARGV[1])
end
"""


class LastCalls:
    """One process's. Calls with an access token belong to no key and are left out."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._news: dict[tuple[str, str], LastCall] = {}  # by key and field
        self._told: set[tuple[str, Agent | None]] = set()  # whose calls were answered in this hour
        self._hour = clock.now_ms() // HOUR_MS

    def answered(self, caller: CallerRecord, agent: Agent | None, request_id: str) -> None:
        """A call that is being answered by a model."""
        if (caller.id, agent) not in self._told:
            call = LastCall(request_id=request_id, at_ms=clock.now_ms(), agent=agent, status=200)
            if self._note(caller, f"ok:{agent or ''}", call):
                self._told.add((caller.id, agent))

    def refused(self, caller: CallerRecord, agent: Agent | None, request_id: str, error: ApiError) -> None:
        """A call that was refused, or that no provider could answer."""
        call = LastCall(
            request_id=request_id, at_ms=clock.now_ms(), agent=agent, status=error.status, code=error.code,
            message=error.message[:LONGEST_MESSAGE].encode(errors="replace").decode(),  # so that it can be told for certain
        )  # fmt: skip
        self._note(caller, f"refused:{agent or ''}", call)

    def _note(self, caller: CallerRecord, field: str, call: LastCall) -> bool:
        name = caller.id, field
        if caller.kind != "key" or (len(self._news) >= KEPT and name not in self._news):
            return False
        self._news[name] = call
        return True

    def tell(self) -> None:
        """Give Redis what was noted since the last time. Raises what `send` raises; then it is told with the next."""
        hour = clock.now_ms() // HOUR_MS
        if hour != self._hour or len(self._told) >= REMEMBERED:
            self._hour = hour
            self._told.clear()
        if not self._news:
            return
        news, self._news = self._news, {}
        arguments: list[str | bytes] = []
        for (_, field), call in news.items():
            arguments += [field, msgspec.json.encode(call)]
        try:
            self._send("EVAL", TELL, len(news), *(store.last_calls(id) for id, _ in news), LIFE_S, *arguments)
        except BaseException:
            self._news = news | self._news
            raise
