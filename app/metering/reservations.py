"""The meter: reserve before the upstream is asked, beat while it answers, settle once it has.

A call is charged to a chain of scopes (key, subscription, user or member and team, organisation). Reserve checks
the limits of all of them and holds the most that the call can cost in each, in one script, all or nothing.
Of a call that names no output limit it holds the whole default while there is room for it, and near the end of a budget as
much as nearly all of its caller's recent answers took, so that what is left serves many calls and not one (`output_for`).
The hold is a named record with a lease of 20 s; beats move it and store progress. Settle takes the hold off and puts
the cost on; the reaper does the same at the progress for a hold whose lease has ended. A tombstone makes every
repeat harmless. A period is part of its counter's name: the caller works the name out, and the script tells it
to work it out anew when its own clock or the scope's period says otherwise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec
import structlog

from app import clock, store
from app.metering import money, periods, pricing
from app.metering.scopes import ScopeRef
from app.metering.usage import UsageEvent

# A test that waits for a lease to end shortens it.
LEASE_MS = int(os.environ.get("PORTICO_LEASE_MS", "20000"))
BEAT_S = LEASE_MS / 4000
ORIGIN_S = 3600  # how long a silent conversation is remembered
SHORTEST_ANSWER = 16  # tokens; where fewer would fit, the budget is as good as used up
OUTPUTS = 64  # of a caller and a model that are remembered
OUTPUTS_S = 7 * 86_400  # how long, if no more come
HIGH_PERCENT = 95  # of the recent outputs that a shortened limit would not have cut
MOST_BESIDE = 20  # calls under way for which room is left
TOMBSTONE_MS = 300_000  # longer than any spool line waits for its replay
REAPED_MS = 86_400_000  # a worker that slept may wake up long after the reaper settled for it

EXACT = 2**53 - 1  # the largest number that the scripts take
_NOT_COUNTED = 2  # what settle.lua answers when a counter could not take its part

# How a call ended whose process did not live to tell.
LOST: dict[str, Any] = {
    "outcome": "error",
    "status": 503,
    "error_code": "worker_lost",
    "error_message": "The gateway process that served this request ended, or stood still, before the request did.",
}

log = structlog.get_logger("metering")

# Sends one Redis command and answers its reply; may raise whatever its client raises.
Send = Callable[..., Any]


RefusalReason = Literal["requests", "tokens", "parallel", "budget", "unpriced"]


class Charge(NamedTuple):
    """What a reserve is asked for: money in nano-units, tokens whole; see reserve.lua."""

    base_nano: int
    output_price: int
    answers: int
    output_limit: int | None
    assumed_output: int
    priced: bool
    bucket_tokens: int
    outputs_key: str = store.BREAKERS_VERSION  # of the recent outputs; none where it is the version's

    def amount(self, output: int) -> int:
        """The most that the call can cost with answers of `output` tokens, nano-units."""
        return self.base_nano + money.up(output * self.answers, self.output_price)

    def affords(self, left_nano: int) -> int:
        """The longest answer that `left_nano` pays for, tokens. There must be a price."""
        return max((left_nano - self.base_nano) * money.MTOK // (self.output_price * self.answers), 0)


def output_for(charge: Charge, left_nano: int, held_nano: int, usual: int) -> int:
    """The output limit of a call that names none, tokens, as reserve.lua works it out. The tightest budget of its chain has
    `left_nano` neither spent nor held, and `held_nano` held; `usual` is what `usual_output` makes of the recent outputs.

    It is the whole default if that leaves something for as many calls of the usual length as are held for now, `MOST_BESIDE`
    at the most. Near the end it is the usual length, or a fair share if that does not go round, and never less than
    `SHORTEST_ANSWER`: where even that does not fit it is the default again, and the call is refused.
    """
    output = charge.assumed_output
    if charge.output_price == 0:
        return output
    usual = min(usual, output)
    one = charge.amount(usual)
    beside = 0
    if held_nano > 0:
        beside = MOST_BESIDE if held_nano >= one * MOST_BESIDE else -(-held_nano // one)
    fits = charge.affords(left_nano)
    if charge.amount(output) + beside * one <= left_nano or fits < SHORTEST_ANSWER:
        return output
    return min(output, fits, max(min(usual, charge.affords(left_nano // (beside + 1))), SHORTEST_ANSWER))


def usual_output(outputs: Sequence[int]) -> int:
    """A length that is longer than nearly all of these outputs, tokens; a quarter more, so that the next of that length is
    not cut either."""
    if not outputs:
        return pricing.DEFAULT_OUTPUT_TOKENS
    high = sorted(outputs)[-(-len(outputs) * HIGH_PERCENT // 100) - 1]
    return max(-(-high * 5 // 4), SHORTEST_ANSWER)


class RouteQuery(NamedTuple):
    """What routing asks for in the trip of a reserve: the keys of a conversation's origin and of a breaker's probe, for how
    many ms the probe is this call's, and the ids of the deployments for which a conversation that is there leaves it alone.
    A key that is not needed is the version's."""

    origin_key: str = store.BREAKERS_VERSION
    probe_key: str = store.BREAKERS_VERSION
    probe_ms: int = 0
    peers: str = ""


NO_QUERY = RouteQuery()


class Hold(msgspec.Struct):
    """What was granted: `amount_nano` held in each scope, and the output limit it pays for.

    `bounded` tells that a budget applies, so that the limit must be sent upstream. Rates are -1 where there is none.
    `keys` are the Redis keys of the chain, three a scope, as the scripts take them.
    """

    request_id: str
    scopes: tuple[ScopeRef, ...]
    windows: tuple[periods.Window, ...]
    keys: list[str]
    at_ms: int
    amount_nano: int
    output_limit: int
    bounded: bool
    requests_limit: int = -1
    requests_left: int = -1
    tokens_limit: int = -1
    tokens_left: int = -1
    slots: str = ""  # which scopes of the chain it takes a parallel slot of, counted from 1: "1,3"
    breakers: str = ""  # the version of the circuit breakers, see `app.gateway.breakers`
    origin: str = ""  # the deployment that served the conversation last, if that is kept
    has_probe: bool = False
    reserved: bool = True  # False for a free call that Redis was not there to hear of: it has no lease to lose


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A scope's limits and counters as they are now. `spec` is the budget's period, ms are Unix time."""

    limit_nano: int | None = None
    spent_nano: int = 0
    held_nano: int = 0
    spec: str = periods.ALL_TIME
    resets_ms: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None

    @property
    def period(self) -> str:
        return self.spec.partition("|")[0]

    @property
    def left_nano(self) -> int | None:
        """What is neither spent nor held, below 0 for an overspent budget; None where there is no limit."""
        return None if self.limit_nano is None else self.limit_nano - self.spent_nano - self.held_nano


class Refused(Exception):
    """A reserve that was not granted; nothing was taken. `reason` is requests, tokens, parallel, budget or unpriced."""

    def __init__(
        self, reason: RefusalReason, scope: ScopeRef, *, limit: int = 0, retry_ms: int = 0, spent: int = 0, held: int = 0,
        amount: int = 0, affordable_tokens: int = 0, resets_ms: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{reason}: {scope.kind} {scope.shown}")
        self.reason = reason
        self.scope = scope
        self.limit = limit  # requests, tokens, parallel requests, or nano-units
        self.retry_ms = retry_ms
        self.spent = spent
        self.held = held
        self.amount = amount
        self.affordable_tokens = affordable_tokens
        self.resets_ms = resets_ms


def free_hold(request_id: str, scopes: tuple[ScopeRef, ...]) -> Hold:
    """The hold of a call that costs nothing and could not be reserved; it is settled when the meter is back."""
    now_ms = clock.now_ms()
    windows = tuple(periods.window_of(periods.ALL_TIME, now_ms) for _ in scopes)
    return Hold(request_id, scopes, windows, chain_keys(scopes, windows), now_ms, 0, 0, bounded=False, reserved=False)


class Origin(NamedTuple):
    """The deployment that a conversation stays with for an hour; none ("") where its hash leads there by itself."""

    key: str
    deployment_id: str


class Output(NamedTuple):
    """How long an answer was, tokens, to be remembered among the recent outputs of its caller and model."""

    key: str
    tokens: int


class Settlement(NamedTuple):
    """What a settle did. `reaped` is there when the reaper had settled the call at its progress before; `counted` is
    False when a counter could not take its part, so that the books alone know it."""

    applied: bool
    reaped: Reaped | None = None
    counted: bool = True

    def __bool__(self) -> bool:
        return self.applied


class Reaped(NamedTuple):
    """What the reaper charged for a call whose lease had ended."""

    cost_nano: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tombstone(self) -> str:
        """What the tombstone says, so that a late settle charges only the rest."""
        return "reaped:" + ":".join(str(number) for number in self)


class MeterClosed(Exception):
    """The counters are not known to be whole (Redis was lost or restarted); money waits until they are."""


class _Script:
    """A Lua script sent by its digest, and whole where the server does not know it yet.

    `before` names a script that is put before it, `numbers` are what it calls by a name.
    """

    def __init__(self, name: str, *before: str, **numbers: int) -> None:
        told = "".join(f"local {number} = {value}\n" for number, value in numbers.items())
        self._text = told + "".join((Path(__file__).parent / f"{part}.lua").read_text() for part in (*before, name))
        self.digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def run(self, send: Send, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        try:
            return send("EVALSHA", self.digest, len(keys), *keys, *args)
        except Exception as error:
            if "NOSCRIPT" not in str(error) and "No matching script" not in str(error):
                raise
            return send("EVAL", self._text, len(keys), *keys, *args)


RESERVE = _Script(
    "reserve", "clock", SHORTEST_ANSWER=SHORTEST_ANSWER, HIGH_PERCENT=HIGH_PERCENT,
    UNKNOWN_OUTPUT=pricing.DEFAULT_OUTPUT_TOKENS, MOST_BESIDE=MOST_BESIDE,
)  # fmt: skip
SETTLE = _Script("settle", "clock", OUTPUTS=OUTPUTS, OUTPUTS_S=OUTPUTS_S)
BEAT, RESTORE, OVERDUE = (_Script(name, "clock") for name in ("beat", "restore", "overdue"))


class Meter:
    """The scripts over one Redis connection.

    `send` is a hot or a cold client's way to run a command, `run_id` tells which run of the server it talks to.
    """

    def __init__(self, send: Send, run_id: Callable[[], str]) -> None:
        self._send = send
        self._run_id = run_id
        # The period each scope had when last asked; a wrong one costs one more trip, never a wrong count.
        self._specs: dict[tuple[str, str], str] = {}

    def reserve(
        self,
        request_id: str,
        scopes: tuple[ScopeRef, ...],
        charge: Charge,
        event: bytes,
        query: RouteQuery = NO_QUERY,
    ) -> Hold:
        """Hold what the call may cost, and answer routing's query. Raises `Refused` or `MeterClosed`."""
        now_ms = clock.now_ms()
        for _ in range(4):
            windows = tuple(
                periods.window_of(self._specs.get((scope.kind, scope.id), periods.ALL_TIME), now_ms) for scope in scopes
            )
            keys = chain_keys(scopes, windows)
            reply = RESERVE.run(
                self._send,
                [
                    store.METER, store.LEASES, store.hold(request_id), store.tombstone(request_id),
                    store.BREAKERS_VERSION, query.origin_key, query.probe_key, charge.outputs_key, *keys,
                ],
                [
                    request_id,
                    self._run_id(),
                    LEASE_MS,
                    charge.base_nano,
                    charge.output_price,
                    charge.answers,
                    -1 if charge.output_limit is None else charge.output_limit,
                    charge.assumed_output,
                    int(charge.priced),
                    charge.bucket_tokens,
                    event,
                    query.probe_ms,
                    query.peers,
                    *self._assumed(scopes, windows),
                ],
            )  # fmt: skip
            verdict = _text(reply[0])
            if verdict != "moved":
                return self._verdict(verdict, reply, request_id, scopes, windows, keys)
            now_ms = reply[1]
            if len(self._specs) > 50_000:
                self._specs.clear()
            for scope, spec in zip(scopes, reply[2:], strict=True):
                self._specs[scope.kind, scope.id] = _text(spec)
        raise MeterClosed("periods kept changing")

    def _assumed(self, scopes: tuple[ScopeRef, ...], windows: tuple[periods.Window, ...]) -> list[str | int]:
        args: list[str | int] = []
        for scope, window in zip(scopes, windows, strict=True):
            args += [self._specs.get((scope.kind, scope.id), periods.ALL_TIME), window.start_ms, window.end_ms]
        return args

    @staticmethod
    def _verdict(
        verdict: str,
        reply: list[Any],
        request_id: str,
        scopes: tuple[ScopeRef, ...],
        windows: tuple[periods.Window, ...],
        keys: list[str],
    ) -> Hold:
        if verdict == "ok":
            return Hold(
                request_id, scopes, windows, keys, reply[1], reply[2], reply[3], bool(reply[4]),
                reply[5], reply[6], reply[7], reply[8], _text(reply[9]),
                _text(reply[10]), _text(reply[11]), bool(reply[12]),
            )  # fmt: skip
        if verdict in ("closed", "done"):
            raise MeterClosed(verdict)
        scope, reason = scopes[reply[1] - 1], cast("RefusalReason", verdict)
        if verdict == "unpriced":
            raise Refused(reason, scope)
        if verdict == "budget":
            resets = reply[7] if reply[7] < periods.FOR_EVER_MS else None
            raise Refused(
                reason, scope, limit=reply[2], spent=reply[3], held=reply[4], amount=reply[5],
                affordable_tokens=reply[6], resets_ms=resets,
            )  # fmt: skip
        raise Refused(reason, scope, limit=reply[2], retry_ms=reply[3])

    def beat(self, hold: Hold, cost_nano: int, event: bytes) -> bool:
        """Move the lease and store the progress; False when the hold is gone and the call must be stopped."""
        keys = [store.METER, store.LEASES, store.hold(hold.request_id), *hold.keys]
        return bool(BEAT.run(self._send, keys, [hold.request_id, LEASE_MS, _exact(cost_nano), event, self._run_id()]))

    def settle(
        self,
        hold: Hold,
        cost_nano: int,
        tokens: int,
        event: bytes,
        origin: Origin | None = None,
        output: Output | None = None,
    ) -> Settlement:
        """Charge what the call cost and append its usage event; not applied when that was done before. `origin` tells which
        deployment served its conversation, `output` how long its answer was, if that is to be remembered.

        Raises `MeterClosed` while counters are counted anew; the same settle is then to be repeated.
        """
        return self._settle(hold.request_id, hold.keys, cost_nano, tokens, event, origin=origin, output=output)

    def settle_late(self, hold: Hold, event: UsageEvent) -> Settlement:
        """Charge what a call cost beyond what the reaper had charged for it; `event` tells the difference."""
        tokens = event.prompt_tokens + event.completion_tokens
        return self._settle(late_id(hold.request_id), hold.keys, event.cost_nano, tokens, msgspec.json.encode(event))

    def settle_event(self, event: UsageEvent) -> bool:
        """Settle again what a spool line tells; False when it was settled already. Raises `MeterClosed`."""
        keys = []
        for kind, id, period in event.scopes:
            keys += [store.scope(kind, id), store.spent(kind, id, period), store.slots(kind, id)]
        tokens = event.prompt_tokens + event.completion_tokens
        id = late_id(event.request_id) if event.kind == "late" else event.request_id
        return bool(self._settle(id, keys, event.cost_nano, tokens, msgspec.json.encode(event)))

    def overdue(self, limit: int) -> tuple[int, list[str]]:
        """The meter's clock, ms, and so many of the requests whose lease has ended by it."""
        now_ms, ids = OVERDUE.run(self._send, [store.METER, store.LEASES], [LEASE_MS, limit])
        return now_ms, [_text(id) for id in ids]

    def expire_overdue(self, limit: int = 50) -> list[UsageEvent]:
        """Expire what the reaper has not come to yet: a refused request need not wait for it."""
        expired = (self.expire(id) for id in self.overdue(limit)[1])
        return [event for event in expired if event is not None]

    def expire(self, request_id: str) -> UsageEvent | None:
        """Settle a hold whose lease has ended at its progress, or release it; None when it lives or is gone.

        The event is in the stream only: the caller keeps it in a spool too, in case Redis is lost before it is posted.
        """
        fields = ("cost", "event", "keys", "at", "amount")
        cost, event, keys, at, amount = self._send("HMGET", store.hold(request_id), *fields)
        if keys is None:
            self._send("ZREM", store.LEASES, request_id)
            return None
        try:
            told = msgspec.json.decode(_text(event), type=UsageEvent)
            cost, at_ms, held_nano = int(cost), int(at), int(amount)
        except (msgspec.DecodeError, ValueError, TypeError) as error:  # nothing is no number either
            # Whatever wrote that: the hold comes off, and what stood in it becomes a dead letter.
            log.error("a hold can't be read", request_id=request_id, reason=str(error))
            self._settle(request_id, _text(keys).split("\n"), 0, 0, event or b"", Reaped(0, 0, 0))
            return None
        if not told.scopes:  # written before there was a hold: the call never beat
            scopes = tuple(store.counter_of(key) for key in _text(keys).split("\n")[1::3])
            told = msgspec.structs.replace(told, at_ms=at_ms, hold_nano=held_nano, scopes=scopes)
        told = msgspec.structs.replace(told, **LOST)
        reaped = Reaped(cost, told.prompt_tokens, told.completion_tokens)
        tokens = told.prompt_tokens + told.completion_tokens
        chain = _text(keys).split("\n")
        return told if self._settle(request_id, chain, cost, tokens, msgspec.json.encode(told), reaped) else None

    def counting(self) -> str | None:
        """The count that is going on, for which holds are to be put back; None while the meter is open."""
        told = self._send("HGET", store.METER, "counting")
        return None if told is None else _text(told)

    def restore(self, count: str, hold: Hold, cost_nano: int, event: bytes) -> None:
        """Put the hold of a call that goes on back for `count`."""
        fields: dict[str, str | int | bytes] = {
            "at": hold.at_ms,
            "amount": hold.amount_nano,
            "output": hold.output_limit,
            "bounded": int(hold.bounded),
            "keys": "\n".join(hold.keys),
            "taken": ",".join("-1" for _ in hold.scopes),
            "parallel": hold.slots,
            "cost": _exact(cost_nano),
            "event": event,
        }
        flat: list[str | int | bytes] = []
        for name, value in fields.items():
            flat += [name, value]
        keys = [store.METER, store.LEASES, store.hold(hold.request_id), *hold.keys]
        args: list[str | int | bytes] = [hold.request_id, LEASE_MS, count]
        RESTORE.run(self._send, keys, args + flat)

    def report(self, count: str, writer: str) -> None:
        """Tell that every hold of the process that writes the spool `writer` is back."""
        self._send("SADD", store.counted(count), writer)

    def outputs(self, key: str) -> list[int]:
        """The recent outputs that are remembered there, tokens."""
        return [int(length) for length in self._send("LRANGE", key, 0, -1)]

    def levels(self, scopes: Sequence[ScopeRef], now_ms: int) -> list[Level]:
        """What enforcement knows of each scope at this instant."""
        return [self._level(scope, now_ms) for scope in scopes]

    def _level(self, scope: ScopeRef, now_ms: int) -> Level:
        limit, spec, rpm, tpm, parallel = (
            None if told is None else _text(told)
            for told in self._send(
                "HMGET", store.scope(scope.kind, scope.id), "limit", "spec", "rpm", "tpm", "parallel"
            )
        )
        spec = spec or periods.ALL_TIME
        window = periods.window_of(spec, now_ms)
        spent, held = self._send("HMGET", store.spent(scope.kind, scope.id, window.name), "spent", "held")
        return Level(
            limit_nano=_number(limit),
            spent_nano=int(spent or 0),
            held_nano=int(held or 0),
            spec=spec,
            resets_ms=window.end_ms if window.end_ms < periods.FOR_EVER_MS else None,
            rpm=_number(rpm),
            tpm=_number(tpm),
            max_parallel=_number(parallel),
        )

    def _settle(
        self,
        request_id: str,
        chain: list[str],
        cost_nano: int,
        tokens: int,
        event: bytes | str,
        reaped: Reaped | None = None,
        origin: Origin | None = None,
        output: Output | None = None,
    ) -> Settlement:
        origin_key, deployment_id = origin or (store.METER, "-")
        outputs_key, length = output or (store.METER, -1)
        keys = [
            store.METER, store.LEASES, store.hold(request_id), store.tombstone(request_id), store.USAGE, origin_key,
            outputs_key, *chain,
        ]  # fmt: skip
        args: list[str | int | bytes] = [
            request_id, _exact(cost_nano), max(_exact(tokens), 0), event, TOMBSTONE_MS if reaped is None else REAPED_MS,
            0 if reaped is None else LEASE_MS, self._run_id(), "settled" if reaped is None else reaped.tombstone,
            deployment_id, ORIGIN_S, length,
        ]  # fmt: skip
        code, *rest = SETTLE.run(self._send, keys, args)
        if code < 0:
            raise MeterClosed("the counters are counted anew")
        if code == _NOT_COUNTED:
            log.error(
                "a counter could not take a cost: only the books know it", request_id=request_id, cost_nano=cost_nano
            )
            return Settlement(True, counted=False)
        if not rest or not _text(rest[0]).startswith("reaped:"):
            return Settlement(bool(code))
        return Settlement(False, Reaped(*(int(number) for number in _text(rest[0]).split(":")[1:])))


def _exact(number: int) -> int:
    """The number, or the nearest that the scripts' doubles tell exactly."""
    return max(-EXACT, min(number, EXACT))


def late_id(request_id: str) -> str:
    """The name under which what came after the lease of a request is settled."""
    return f"{request_id}:late"


def chain_keys(scopes: Sequence[ScopeRef], windows: Sequence[periods.Window]) -> list[str]:
    """The Redis keys of a chain, three a scope."""
    keys = []
    for scope, window in zip(scopes, windows, strict=True):
        keys += [
            store.scope(scope.kind, scope.id),
            store.spent(scope.kind, scope.id, window.name),
            store.slots(scope.kind, scope.id),
        ]
    return keys


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
