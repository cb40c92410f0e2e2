"""What /v1 denied to whom: keys that are refused, and models that a key may not use.

A flood of them must fill nothing. Each process counts them by who and what and tells the sums to Redis once a second:
the first of its kind in an hour goes into a list, of which the cold side makes an audit entry and this process a line of
its log; the others are only counted, and told as one sum when the hour is over. Beyond bounds of variety the who and
what are left out. No text of a credential is kept, only its digest and, of a long one, its last four characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

from app import clock, store
from app.directory import CallerRecord
from app.gateway import metrics
from app.sealing import digest

Reason = Literal["no_key", "invalid_key", "model"]

HOUR_MS = 3_600_000
KEPT = 500  # kinds in one second of one process
KEPT_AN_HOUR = 5_000  # in all
MODELS_OF_ONE = 20  # names that one caller asks for in a second
LIFE_S = 2 * 86_400
LONG = 20  # characters of a credential, of which four may be shown

log = structlog.get_logger("gateway.denials")

# KEYS  1 the hour's sums  2 the list of firsts
# ARGV  1 the most kinds an hour  2 life, seconds  3 the moment, ms; then each kind: its JSON, its count, its JSON without
# who and what, for when there are too many. A sum is kept as "<told already>:<all>". Answers which were new, from 1.
TELL = """
local new = {}
for at = 4, #ARGV, 3 do
  local kind, count = ARGV[at], tonumber(ARGV[at + 1])
  if redis.call('HEXISTS', KEYS[1], kind) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    kind = ARGV[at + 2]
  end
  local kept = redis.call('HGET', KEYS[1], kind)
  if kept then
    local told, all = string.match(kept, '(%d+):(%d+)')
    redis.call('HSET', KEYS[1], kind, told .. ':' .. string.format('%.0f', all + count))
  else
    redis.call('HSET', KEYS[1], kind, count .. ':' .. count)
    redis.call('RPUSH', KEYS[2], cjson.encode({at_ms = tonumber(ARGV[3]), count = count, kind = kind}))
    new[#new + 1] = (at - 1) / 3
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return new
"""


class Denial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of denial. Without `digest` and `caller_id` it stands for all that were too many to keep."""

    reason: Reason
    digest: str | None = None  # of a refused credential, as it would be published
    last4: str | None = None
    caller_id: str | None = None  # of one that is known: the key's or the access token's
    caller: str | None = None  # its name
    person_id: str | None = None
    model: str | None = None


class Told(msgspec.Struct, frozen=True):
    """A kind that was new in its hour: how often it came in its first second. `kind` is the JSON of a `Denial`."""

    at_ms: int
    count: int
    kind: str


def _shown(name: str) -> str:
    """What somebody called a model, as a database takes it."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in name[:200])


class Denials:
    """One process's."""

    def __init__(self, send: Callable[..., Any], pepper: bytes) -> None:
        self._send = send
        self._pepper = pepper
        self._sums: dict[Denial, int] = {}
        self._models: dict[str, set[str]] = {}

    def no_key(self) -> None:
        """A request without a credential: there is nobody to tell of."""
        metrics.count_denial("no_key")

    def key(self, bearer: str) -> None:
        """A credential that is unknown, revoked or expired."""
        last4 = bearer[-4:] if len(bearer) >= LONG and bearer.isascii() and bearer.isprintable() else None
        whose = digest(self._pepper, bearer[:4096])
        self._count(Denial(reason="invalid_key", digest=whose, last4=last4))

    def model(self, caller: CallerRecord, name: str) -> None:
        """A model that is not there or that the caller may not use."""
        named = self._models.setdefault(caller.id, set())
        known = name in named or len(named) < MODELS_OF_ONE
        if known:
            named.add(name)
        self._count(
            Denial(
                reason="model", caller_id=caller.id, caller=caller.name, person_id=caller.person_id,
                model=_shown(name) if known else None,
            )
        )  # fmt: skip

    def _count(self, denial: Denial) -> None:
        metrics.count_denial(denial.reason)
        if denial not in self._sums and len(self._sums) >= KEPT:
            denial = Denial(reason=denial.reason)
        self._sums[denial] = self._sums.get(denial, 0) + 1

    def tell(self) -> None:
        """Give Redis what was counted since the last time. Raises what `send` raises; then it is counted on."""
        if not self._sums:
            return
        sums, at_ms = list(self._sums.items()), clock.now_ms()
        arguments: list[str | bytes | int] = []
        for denial, count in sums:
            arguments += [msgspec.json.encode(denial), count, msgspec.json.encode(Denial(reason=denial.reason))]
        new = self._send(
            "EVAL", TELL, 2, store.denials(at_ms // HOUR_MS), store.DENIALS, KEPT_AN_HOUR, LIFE_S, at_ms, *arguments
        )
        for denial, count in sums:
            self._sums[denial] -= count
        self._sums = {denial: count for denial, count in self._sums.items() if count}
        self._models.clear()
        for place in new:
            denial, count = sums[int(place) - 1]
            log.warning(
                "a model was denied" if denial.reason == "model" else "a key was refused",
                key=denial.digest and denial.digest[:8], last4=denial.last4, caller=denial.caller_id,
                model=denial.model, count=count,
            )  # fmt: skip
