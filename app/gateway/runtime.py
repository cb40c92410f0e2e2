"""What one gateway process holds: its Redis connection, its meter, its map of models, its spool.

Made lazily in each worker, after the fork and after gevent has patched the process.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import gevent
import msgspec
import structlog
from hiredis import ReplyError

from app import store
from app.gateway import affinity, metrics
from app.gateway.access import Access
from app.gateway.call import Call
from app.gateway.denials import Denials
from app.gateway.errors import unavailable
from app.gateway.last_calls import LastCalls
from app.gateway.local_rates import LocalRates
from app.gateway.redis_wire import RedisAway, RedisWire
from app.gateway.refused_calls import RefusedCalls
from app.gateway.routing import Routes
from app.metering.outbox import Spool
from app.metering.reservations import BEAT_S, NO_QUERY, Charge, Hold, Meter, MeterClosed, Refused, RouteQuery
from app.metering.scopes import ScopeRef
from app.metering.usage import UsageEvent
from app.providers.addresses import AddressPolicy
from app.providers.settings import Variables
from app.runtime import failpoints, logs
from app.runtime.sealing import Sealer
from config import Config

log = structlog.get_logger("gateway")


# Why the meter did not take something; it is given again.
_NOT_TAKEN = (RedisAway, ReplyError, MeterClosed)

AT_ONCE = 100  # beats
MOST_REFUSALS = 8  # of one settle, over some eight minutes

_running: list[Runtime] = []
_of_process: dict[int, Runtime] = {}  # by the settings that it was made with, which live as long as their application


def of_process(config: Config) -> Runtime:
    """The gateway of this process, made at its first call: after the fork, in the worker. The doors of a process share it."""
    runtime = _of_process.get(id(config))
    if runtime is None:
        runtime = _of_process[id(config)] = Runtime(config)
    return runtime


def drain() -> None:
    """The process is to end: streams that still go on are stopped, so that they end honestly and are billed."""
    for runtime in _running:
        runtime.drain()


class SpoolFull(Exception):
    """The disk takes no usage events, so no call is let in that would make one."""


class _Waiting(msgspec.Struct):
    """A settle that Redis did not take yet; how often it refused this very one, and when it is tried again."""

    event: UsageEvent
    line: bytes
    refused: int = 0
    due: float = 0.0


class Runtime:
    """The gateway of this process."""

    def __init__(self, config: Config) -> None:
        secrets = config.secrets()
        self.config = self._at_start = config
        self.wire = RedisWire(config.redis_url)
        self.meter = Meter(self.wire.call, lambda: self.wire.run_id)
        self.access = Access(self.wire, secrets.key_pepper)
        sealer = Sealer(secrets.encryption_keys, config.encryption_keys)
        variables = Variables(config.upstream.env)
        default_model = config.gateway.default_model
        self.routes = Routes(self.wire, sealer, AddressPolicy.of(config), variables, default_model)
        self.routes.told_settings = self._follow
        self.spool = Spool(config.spool_dir)
        self.local_rates = LocalRates()
        self.denials = Denials(self.wire.call, secrets.key_pepper)
        self.last_calls = LastCalls(self.wire.call)
        self.refused_calls = RefusedCalls(self.wire.call)
        self._live: set[Call] = set()
        self._unsettled: dict[Call, _Waiting] = {}
        self._unspooled: list[bytes] = []  # lines that the disk has not taken; while there are any, no call is let in
        self._reported = ("", "")  # the count and the spool file last reported for
        self._beats = gevent.spawn(self._beat_for_ever)
        _running.append(self)

    def know_directory(self) -> None:
        """Read the directory if another version is published: who presents no key has not heard of it. Raises `ApiError`."""
        with suppress(RedisAway):  # what is known still holds
            version = self.wire.call("GET", store.DIRECTORY_VERSION)
            self.routes.refresh(None if version is None else version.decode())
        if self.routes.version is None:
            raise unavailable("The directory of models")

    def _follow(self, stored: dict[str, Any]) -> None:
        """Admins have stored settings: those that the gateway knows act from the next call on."""
        before, self.config = self.config.log, self._at_start.with_stored(stored)
        self.routes.default_model = self.config.gateway.default_model
        if self.config.log != before:
            logs.follow(self.config.log)

    def begin(self, call: Call) -> None:
        """A call holds money: beat for it until it is settled."""
        self._live.add(call)

    def reserve(self, call: Call, scopes: tuple[ScopeRef, ...], charge: Charge, query: RouteQuery = NO_QUERY) -> Hold:
        """Hold what the call may cost. Raises `Refused`, but not for holds whose lease has ended: those go first; and
        `SpoolFull` while the disk takes no usage events."""
        if self._unspooled or not self.spool.is_open:
            raise SpoolFull
        event = msgspec.json.encode(call.opening())
        try:
            return self.meter.reserve(call.id, scopes, charge, event, query)
        except Refused as refused:
            if refused.reason not in ("budget", "parallel"):
                raise
            expired = self.meter.expire_overdue()
            for lost in expired:
                self._write(msgspec.json.encode(lost))
            if not expired:
                raise
        return self.meter.reserve(call.id, scopes, charge, event, query)

    def settle(self, call: Call) -> None:
        """Charge a call whose outcome is known, exactly once: first its spool line, then the meter.

        When Redis is away the line is safe and the settle is repeated until it is taken. When the disk is full it is the
        other way round, and the client gets the answer that it pays for.
        """
        if call.settled:
            return
        call.settled = True
        event = call.event()
        line = msgspec.json.encode(event)
        self._write(line)
        failpoints.reach("spooled")
        self._live.discard(call)
        metrics.count_call(call, event.cost_nano)
        self._alarm(call, event)
        try:
            self._settle(call, event, line)
        except _NOT_TAKEN as error:
            log.warning("a settle waits for Redis", request_id=call.id, reason=str(error))
            self._unsettled[call] = _Waiting(event, line)

    def _settle(self, call: Call, event: UsageEvent, line: bytes) -> None:
        tokens = event.prompt_tokens + event.completion_tokens
        origin, output = affinity.origin_of(call), call.output()
        settlement = self.meter.settle(call.hold, event.cost_nano, tokens, line, origin, output)
        failpoints.reach("settled")
        if not settlement.counted:
            metrics.count_alarm("not_counted")
        if settlement.reaped is None:
            return
        late = call.late_event(settlement.reaped)
        if late is not None:
            log.error("a call settled after its lease", request_id=call.id, overdraft_nano=late.cost_nano)
            metrics.count_alarm("late")
            self._write(msgspec.json.encode(late))
            self.meter.settle_late(call.hold, late)

    def _write(self, line: bytes) -> None:
        """Into the spool, in order; what the disk does not take is kept and written again."""
        self._unspooled.append(line)
        if len(self._unspooled) == 1:
            self._write_again()

    def _write_again(self) -> None:
        try:
            self.spool.open()
            while self._unspooled:
                self.spool.append(self._unspooled[0])
                self._unspooled.pop(0)
        except OSError as error:
            log.error("the spool can't be written: no call is let in", reason=str(error), waiting=len(self._unspooled))

    def _beat_for_ever(self) -> None:
        while True:
            gevent.sleep(min(1.0, BEAT_S))
            metrics.tell()
            if self._unspooled or not self.spool.is_open:
                self._write_again()
            try:
                self._report_holds()
                self._settle_again()
                self.denials.tell()
                self.last_calls.tell()
                self.refused_calls.tell()
                self.routes.breakers.publish()
                self.routes.breakers.traffic.tell()
            except _NOT_TAKEN as error:
                log.warning("the meter did not answer", reason=str(error))
            # Each by its own clock and some at a time: thousands at once would hold up everybody else.
            before = time.monotonic() - BEAT_S
            due = [call for call in self._live if call.hold.reserved and call.beaten_at <= before]
            for start in range(0, len(due), AT_ONCE):
                gevent.joinall([gevent.spawn(self._beat, call) for call in due[start : start + AT_ONCE]])

    def _beat(self, call: Call) -> None:
        if call.settled:  # while others were beaten for
            return
        call.beaten_at = time.monotonic()
        try:
            alive = self.meter.beat(call.hold, call.cost_nano, call.encoded_event())
        except _NOT_TAKEN as error:
            log.warning("a beat was missed", request_id=call.id, reason=str(error))
            return
        if not alive and not call.settled:
            call.interrupt("fenced")

    def _settle_again(self) -> None:
        """Settle what waits; raises while Redis takes nothing at all.

        What it refuses by itself holds up nothing behind it: that is tried again less and less often, and in the end left
        to the reaper and to the janitor, who has its line.
        """
        now = time.monotonic()
        for call, waiting in [item for item in self._unsettled.items() if item[1].due <= now]:
            try:
                self._settle(call, waiting.event, waiting.line)
            except ReplyError as error:
                waiting.refused += 1
                waiting.due = now + 2**waiting.refused
                log.error("Redis refuses a settle", request_id=call.id, times=waiting.refused, reason=str(error))
                metrics.count_alarm("refused")
                if waiting.refused < MOST_REFUSALS:
                    continue
            self._unsettled.pop(call, None)

    @staticmethod
    def _alarm(call: Call, event: UsageEvent) -> None:
        """Say what an operator has to know of a call's usage."""
        usage = call.usage
        if usage.unreadable is not None:
            log.error(
                "an upstream tells usage that can't be: tokens were counted here",
                request_id=call.id, provider_id=call.provider_id, told=usage.unreadable,
            )  # fmt: skip
            metrics.count_alarm("unreadable")
        if usage.unpriced:
            log.warning(
                "an upstream did what has no price",
                request_id=call.id, provider_id=call.provider_id, told=dict(usage.unpriced),
            )  # fmt: skip
            metrics.count_alarm("unpriced")
        over = event.overdraft_nano
        if over > 0:
            log.error(
                "a call cost more than was held for it",
                request_id=call.id, provider_id=call.provider_id, overdraft_nano=over,
            )  # fmt: skip
            metrics.count_alarm("overdraft")

    def _report_holds(self) -> None:
        """Redis was lost or restarted: put back what this process holds, and say so, before the meter opens again."""
        count = self.meter.counting()
        if count is None or self._reported == (count, self.spool.name):
            return
        name = self.spool.name
        for call in [call for call in self._live if call.hold.reserved]:
            self.meter.restore(count, call.hold, call.cost_nano, call.encoded_event())
        self.meter.report(count, name)
        self._reported = (count, name)

    def drain(self) -> None:
        for call in list(self._live):
            call.interrupt("stopping")
