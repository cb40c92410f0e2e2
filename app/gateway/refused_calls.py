"""What /v1 refused before an upstream was asked: kept for the ledger, so that people can see it, count it and look it up.

A flood of it must fill nothing. Of one person a process keeps the first `ROWS` of each minute one by one, with the id that the
client was told and the reason; what is beyond is only counted, by key, model and cause, and told when the minute is over. A
call without a valid key has no account and is counted by cause alone. Redis is told once a second: the events join the
stream of usage events, and budgets that are used up are noted for their alerts. It costs a call nothing, and no money moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from app import clock, store
from app.directory import CallerRecord
from app.gateway.call import Call
from app.gateway.errors import ApiError
from app.metering.reservations import SHORTEST_ANSWER
from app.metering.usage import Cause, Refusal, UsageEvent
from app.runtime.ids import new_id
from app.runtime.logs import masked

MINUTE_MS = 60_000
ROWS = 30  # of one person in a minute
ROWS_OF_ALL = 1_000  # that wait to be told
KINDS = 500  # that are counted apart in a minute
AT_ONCE = 200  # events in one command
LONGEST_MESSAGE = 1_000  # characters
LONGEST_NAME = 200  # characters of what somebody called a model
NO_KEY = "missing_api_key"  # the cause of a call without a key; its client is told no code

# KEYS  1 the stream of usage events  2 the scopes whose budgets are used up
# ARGV  1 how many scopes  then these, then the events
TELL = """
local scopes = tonumber(ARGV[1])
for at = 2, scopes + 1 do redis.call('SADD', KEYS[2], ARGV[at]) end
for at = scopes + 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[at]) end
"""


class _Kind(NamedTuple):
    """What is counted together."""

    person_id: str
    status: int
    code: str | None
    key_id: str | None = None
    team_id: str | None = None
    subscription_id: str | None = None
    model: str = ""
    endpoint: str = ""
    api_type: str = ""
    reason: Cause = "other"


class RefusedCalls:
    """One process's."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._events: list[UsageEvent] = []  # to be told
        self._used_up: set[str] = set()
        self._minute = clock.now_ms() // MINUTE_MS
        self._rows: Counter[str] = Counter()  # of this minute, by person
        self._counts: Counter[_Kind] = Counter()
        self._messages: dict[_Kind, str] = {}  # what the first of them was told

    def note(self, caller: CallerRecord, id: str, endpoint: str, error: ApiError, call: Call | None = None) -> None:
        """A call of `caller` was refused with `error`; `call` where it was admitted."""
        refusal = error.refusal or Refusal(reason="other")
        if refusal.reason == "budget" and refusal.affordable_tokens < SHORTEST_ANSWER:
            self._used_up.add(f"{refusal.scope_kind}:{refusal.scope_id}")
        event = _opening(caller, id, endpoint) if call is None else call.opening()
        event.kind, event.outcome, event.refused = "refusal", "refused", 1
        event.at_ms, event.status, event.error_code = clock.now_ms(), error.status, error.code
        if self._rows[caller.person_id] >= ROWS or len(self._events) >= ROWS_OF_ALL:
            self._count(
                _Kind(
                    event.person_id, event.status, event.error_code, event.key_id, event.team_id, event.subscription_id,
                    event.model, event.endpoint, event.api_type, refusal.reason,
                ),
                error.message,
            )  # fmt: skip
            return
        self._rows[caller.person_id] += 1
        event.error_message = _shown(error.message, LONGEST_MESSAGE)
        event.refusal = msgspec.structs.replace(refusal, asked=_shown(refusal.asked, LONGEST_NAME))
        self._events.append(event)

    def nobody(self, endpoint: str, error: ApiError) -> None:
        """A call was refused whose key is missing, unknown or no longer valid."""
        self._count(_Kind("", error.status, error.code or NO_KEY, endpoint=endpoint), error.message)

    def _count(self, kind: _Kind, message: str) -> None:
        if kind not in self._counts and len(self._counts) >= KINDS:
            kind = _Kind(kind.person_id, kind.status, None)
        self._messages.setdefault(kind, message)
        self._counts[kind] += 1

    def tell(self) -> None:
        """Give Redis what was noted since the last time. Raises what `send` raises; then it is told with the next."""
        minute = clock.now_ms() // MINUTE_MS
        if minute != self._minute and len(self._events) < ROWS_OF_ALL:
            self._events += [
                _sum(kind, count, self._messages[kind], self._minute) for kind, count in self._counts.items()
            ]
            self._counts.clear()
            self._messages.clear()
            self._rows.clear()
            self._minute = minute
        scopes = sorted(self._used_up)
        while scopes or self._events:
            events = self._events[:AT_ONCE]
            encoded = [msgspec.json.encode(event) for event in events]
            self._send("EVAL", TELL, 2, store.USAGE, store.EXHAUSTED, len(scopes), *scopes, *encoded)
            self._used_up.difference_update(scopes)
            scopes = []
            del self._events[: len(events)]


def _opening(caller: CallerRecord, id: str, endpoint: str) -> UsageEvent:
    """The event of a call of which no more is known than who asked for what."""
    return UsageEvent(
        request_id=id,
        attempt=1,
        at_ms=0,
        person_id=caller.person_id,
        key_id=caller.id if caller.kind == "key" else None,
        secret_id=caller.secret_id,
        team_id=caller.team_id,
        model="",
        endpoint=endpoint,
        api_type="",
        outcome="refused",
        status=0,
    )


def _sum(kind: _Kind, count: int, message: str, minute: int) -> UsageEvent:
    return UsageEvent(
        request_id=new_id(),
        attempt=1,
        kind="refusal",
        at_ms=minute * MINUTE_MS,
        person_id=kind.person_id,
        key_id=kind.key_id,
        team_id=kind.team_id,
        subscription_id=kind.subscription_id,
        model=kind.model,
        endpoint=kind.endpoint,
        api_type=kind.api_type,
        outcome="refused",
        status=kind.status,
        error_code=kind.code,
        error_message=_shown(message, LONGEST_MESSAGE),
        refused=count,
        refusal=Refusal(reason=kind.reason, counted=True),
    )


def _shown(text: str, longest: int) -> str:
    """A text in which a client's own words may stand, as the ledger takes it: bounded, printable, without secrets."""
    shown = str(masked(text[:longest]))
    return "".join(sign if sign.isprintable() or sign == "\n" else "\ufffd" for sign in shown)
