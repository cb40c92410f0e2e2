"""The drainer of the Procfile: carries usage events from the stream into the ledger, and cleans up after the dead.

A batch is posted in one transaction and only then acknowledged and deleted, so that an event is in the stream or in
the books at every instant and posted once whatever is delivered again. Each second it also replays spool files whose
writer is gone, publishes what waits to be published, tells of budgets that crossed a threshold and, in a thread of its
own that no database can hold up, has the meter settle or release holds whose lease has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog
from redis import Redis, RedisError, ResponseError
from sqlalchemy.exc import DataError, SQLAlchemyError

from app import clock, failpoints, heartbeats, store, timekeeping
from app.ids import new_id
from app.jobs import metering, process, spools
from app.jobs.spools import Poison, decode
from app.ledger import posting
from app.ledger import recount as recounting
from app.metering.outbox import REAPER, Spool
from app.metering.usage import UsageEvent

STATUS = "portico:drainer"  # hash for the status page

BATCH = 1000  # events a transaction, at most
BLOCK_MS = 250
PACE_S = 0.25  # what comes meanwhile is posted together: a transaction costs much more than an event
TICK_S = 1.0
CLAIM_AFTER_MS = 5_000  # a batch that takes longer may be posted twice, which changes nothing
REAPED_AT_ONCE = 1000
BACK_OFF_S = (0.1, 5.0)  # first and longest pause while a store is away
STANDS_STILL_S = 120.0  # a turn of the loop waits for a locked database and for a count, but not longer
DOUBTFUL_S = 60.0  # how long a spool line that the meter knows and the books do not is waited for

# What an event itself can be refused for. Anything else is the database's trouble and is tried again.
_POISON = (DataError, OverflowError, UnicodeError)

log = structlog.get_logger("app.jobs.drainer")  # run as a script, the module has another name


Counter = tuple[str, str, str]  # scope kind, scope id, period name
Scope = tuple[str, str]  # kind and id


class Entry(NamedTuple):
    """One entry of the stream; None for one that was deleted meanwhile."""

    id: bytes
    raw: bytes | None


class Drainer:
    """One drainer. Any number may run at once; Redis hands each entry to one of them.

    Its methods need an application context; `reap` and `report` need Redis only.
    """

    def __init__(
        self,
        url: str,
        spool_dir: Path,
        *,
        meter: metering.Meter | None = None,
        catch_up: Callable[[], object] | None = None,
        alert: Callable[[Collection[Counter], Collection[Scope]], object] | None = None,
        exhausted: Callable[[], Collection[Scope]] = tuple,
        batch: int = BATCH,
        claim_after_ms: int = CLAIM_AFTER_MS,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        self._redis = Redis.from_url(
            url, protocol=2, legacy_responses=False, socket_timeout=5, socket_connect_timeout=5
        )
        self._meter = meter or metering.meter(self._redis)
        self._catch_up = catch_up
        self._alert = alert
        self._exhausted = exhausted
        self._charged: set[Counter] = set()  # counters charged since they were last looked at for alerts
        self._refused: list[tuple[bytes, set[Scope]]] = []  # whose budgets refused, by the newest event of that moment
        self._spool_dir = spool_dir
        self._batch = batch
        self._claim_after_ms = claim_after_ms
        self._spool: Spool | None = None  # of what was reaped, once there is something
        self._stop = threading.Event()
        self._turned = time.monotonic()  # when the loop last came round
        self._watch = timekeeping.Watch(self._redis)
        self._behind = True  # entries of our own may be pending
        self._claim_at = 0.0
        self._marks: dict[Path, bytes] = {}
        self._doubtful: dict[Path, float] = {}
        self._told: dict[str, float] = {}
        self.posted = self.dead = self.reaped = self.replayed = self.torn = 0
        self.spools = 0
        self.drained_ms = _now_ms()
        self.trouble: dict[str, str] = {}

    # --- the stream ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the stream's group, if it is not there: at the start, and after Redis lost everything."""
        try:
            self._redis.xgroup_create(store.USAGE, store.USAGE_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def drain(self, block_ms: int = BLOCK_MS) -> int:
        """Take one batch, post it, then let the stream forget it; returns how many entries it had.

        Raises Redis's and SQLAlchemy's errors, after which everything is still in the stream.
        """
        entries = self._take(block_ms)
        if not entries:
            self.drained_ms = _now_ms()
            return 0
        self._behind = True
        self._post([(f"stream {entry.id.decode()}", entry.raw) for entry in entries if entry.raw is not None])
        failpoints.reach("committed")
        self._acknowledge([entry.id for entry in entries])
        self._behind = False
        self.drained_ms = _now_ms()
        return len(entries)

    def _take(self, block_ms: int) -> list[Entry]:
        """Entries that are ours already, else those of a drainer that died with them, else new ones."""
        try:
            if self._behind:
                if mine := _entries(self._read("0", None)):
                    return mine
                self._behind = False
            if time.monotonic() >= self._claim_at:
                claimed = self._redis.xautoclaim(
                    store.USAGE, store.USAGE_GROUP, self.name, self._claim_after_ms, "0-0", count=self._batch
                )
                if entries := [_entry(entry) for entry in claimed[1]]:
                    return entries
                self._claim_at = time.monotonic() + TICK_S
            return _entries(self._read(">", block_ms))
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self.prepare()
            return []

    def _read(self, since: str, block_ms: int | None) -> Any:
        return self._redis.xreadgroup(
            store.USAGE_GROUP, self.name, {store.USAGE: since}, count=self._batch, block=block_ms or None
        )

    def _post(self, raws: Sequence[tuple[str, bytes]]) -> None:
        events: list[tuple[str, bytes, UsageEvent]] = []
        for source, raw in raws:
            try:
                events.append((source, raw, decode(raw)))
            except Poison as error:
                self._bury(source, raw, str(error))
        self._post_events(events)

    def _post_events(self, events: Sequence[tuple[str, bytes, UsageEvent]]) -> None:
        """Post, and when the database refuses what is in an event, halve the batch until that event is alone."""
        if not events:
            return
        try:
            self.posted += posting.post([event for _, _, event in events])
            if self._alert is not None:
                self._charged.update(*(event.scopes for _, _, event in events))
        except _POISON as error:
            if len(events) == 1:
                source, raw, _ = events[0]
                self._bury(source, raw, _reason(error))
                return
            middle = len(events) // 2
            self._post_events(events[:middle])
            self._post_events(events[middle:])

    def _bury(self, source: str, raw: bytes, reason: str) -> None:
        posting.bury(source, raw, reason)
        self.dead += 1
        log.error("a usage event became a dead letter", source=source, reason=reason)

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        with self._redis.pipeline(transaction=True) as pipe:  # an acknowledged entry must not stay behind
            pipe.xack(store.USAGE, store.USAGE_GROUP, *ids)
            pipe.xdel(store.USAGE, *ids)
            pipe.execute()

    def leave(self) -> None:
        """Take our name off the group if nothing is pending under it, and the names of drainers long gone."""
        for consumer in self._redis.xinfo_consumers(store.USAGE, store.USAGE_GROUP):
            name = _bytes(consumer["name"]).decode()
            if not consumer["pending"] and (name == self.name or consumer["idle"] > 3_600_000):
                self._redis.xgroup_delconsumer(store.USAGE, store.USAGE_GROUP, name)

    def alert(self) -> None:
        """Have those told whose budgets crossed a threshold by what was posted since the last time.

        A budget that refused is judged once the books know all that was spent of it before.
        """
        if self._alert is None:
            return
        if refused := set(self._exhausted()):
            self._refused.append((self._last_id(), refused))
        ready = [entry for entry in self._refused if self._drained_to(entry[0])]
        charged, self._charged = self._charged, set()
        try:
            self._alert(charged, set().union(*(scopes for _, scopes in ready)))
        except BaseException:
            self._charged |= charged
            raise
        self._refused = [entry for entry in self._refused if entry not in ready]

    # --- spool files ----------------------------------------------------------------------------------------------

    def clean(self) -> int:
        """Replay the spool files that nobody writes any more, and delete them; returns how many were done with."""
        done = 0
        found = spools.files(self._spool_dir)
        self._marks = {path: mark for path, mark in self._marks.items() if path in found}
        self._doubtful = {path: since for path, since in self._doubtful.items() if path in found}
        self.spools = 0
        for path in found:
            with spools.closed(path) as file:
                if file is None:
                    continue
                if self._replay(path, file):
                    path.unlink()
                    done += 1
                else:
                    self.spools += 1
        return done

    def _replay(self, path: Path, file: int) -> bool:
        """Settle and post what one file tells and the books do not know; whether it may be deleted.

        The books are only asked once they have all that was in the stream when the file was found closed: an event
        that they lack then was never settled. The meter alone could not tell, as its tombstones do not last.
        """
        if path not in self._marks:
            self._marks[path] = self._last_id()
        if not self._drained_to(self._marks[path]):
            return False
        events = list(self._lines(path, file))
        known = posting.known(events)
        unknown = [event for event in events if (event.request_id, event.kind) not in known]
        settled = [event for event in unknown if self._settle(path, event)]
        settled_names = {(event.request_id, event.kind) for event in settled}
        if settled:
            log.warning("spooled events were settled for a process that died", file=path.name, events=len(settled))
            self.replayed += len(settled)
        doubtful = [event for event in unknown if (event.request_id, event.kind) not in settled_names]
        if doubtful:
            # Settled by somebody else a moment ago: its event is on the way, and it is the true one.
            since = self._doubtful.setdefault(path, time.monotonic())
            if time.monotonic() - since < DOUBTFUL_S:
                self._marks[path] = self._last_id()
                self._post_replayed(path.name, settled)
                return False
            log.error("settled events were missing from the books", file=path.name, events=len(doubtful))
        self._post_replayed(path.name, unknown)
        return True

    def _settle(self, path: Path, event: UsageEvent) -> bool:
        """Whether it was settled now. What the meter refuses holds up nothing else, and is in the books in the end."""
        try:
            return self._meter.settle_event(event)
        except ResponseError as error:
            self._tell("spool", error, file=path.name, request_id=event.request_id)
            return False

    def _post_replayed(self, file: str, events: Sequence[UsageEvent]) -> None:
        for start in range(0, len(events), self._batch):
            batch = events[start : start + self._batch]
            self._post_events([(f"spool {file}", msgspec.json.encode(event), event) for event in batch])

    def _lines(self, path: Path, file: int) -> Iterator[UsageEvent]:
        """The file's events. A last line without its end was cut by the death of its writer before the settle."""
        size = os.fstat(file).st_size
        lines = os.pread(file, size, 0).split(b"\n")
        last = lines.pop()
        yield from self._events(path, lines)
        if last:
            try:
                yield decode(last)
            except Poison:
                self.torn += 1
                log.warning("the last line of a spool file was cut", file=path.name, bytes=len(last))

    def _last_id(self) -> bytes:
        newest = self._redis.xrevrange(store.USAGE, count=1)
        return _bytes(newest[0][0]) if newest else b"0-0"

    def _drained_to(self, mark: bytes) -> bool:
        oldest = self._redis.xrange(store.USAGE, count=1)
        return not oldest or _order(_bytes(oldest[0][0])) > _order(mark)

    def recount(self) -> None:
        """Count the meter's counters anew if Redis lost them or was restarted, and open it."""
        if recounting.is_open(self._redis) or not self._redis.exists(store.DIRECTORY_VERSION):
            return  # the limits have to be there before anything is let in
        self.prepare()
        recounting.recount(self._redis, self._spool_dir, self._drain_all, self._post_spooled, self._spooled)

    def _drain_all(self) -> None:
        self._claim_at = 0.0
        while self.drain(block_ms=1):
            self._claim_at = 0.0

    def _post_spooled(self, events: list[UsageEvent]) -> None:
        self._post_replayed("recount", events)

    def _spooled(self, path: Path) -> Iterator[UsageEvent]:
        """A spool file's events, its writer alive or not; a last line that is still being written waits."""
        try:
            whole = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        yield from self._events(path, whole)

    def _events(self, path: Path, lines: Iterable[bytes]) -> Iterator[UsageEvent]:
        for line in lines:
            try:
                yield decode(line)
            except Poison as error:
                self._bury(f"spool {path.name}", line, str(error))

    # --- holds, and what the status page reads ----------------------------------------------------------------------

    def reap(self) -> int:
        """Have the meter settle or release the holds whose lease has ended; returns how many there were."""
        _, over = self._meter.overdue(REAPED_AT_ONCE)
        for request_id in over:
            try:
                event = self._meter.expire(request_id)
                self.reaped += event is not None
                if isinstance(event, UsageEvent):
                    self._keep_reaped(event)
            except Exception as error:  # one bad hold must not keep the others
                if isinstance(error, RedisError) and not isinstance(error, ResponseError):
                    raise  # Redis is away
                self._tell("reaper", error, request_id=request_id)
        return len(over)

    def _keep_reaped(self, event: UsageEvent) -> None:
        if self._spool is None:
            self._spool = Spool(self._spool_dir, REAPER)
        self._spool.append(msgspec.json.encode(event))

    def report(self) -> None:
        """Tell that the drainer runs, unless its loop stands still, and write the backlog for the status page."""
        if time.monotonic() - self._turned < STANDS_STILL_S:
            heartbeats.beat(self._redis, "drainer")
        oldest = self._redis.xrange(store.USAGE, count=1)
        now = _now_ms()
        lag_ms = max(0, now - _order(_bytes(oldest[0][0]))[0]) if oldest else 0
        self._redis.hset(
            STATUS,
            mapping={
                "name": self.name,
                "pid": os.getpid(),
                "at_ms": now,
                "drained_ms": self.drained_ms,
                "lag_events": int(self._redis.xlen(store.USAGE)),
                "lag_ms": lag_ms,
                "posted": self.posted,
                "dead_letters": self.dead,
                "reaped": self.reaped,
                "replayed": self.replayed,
                "torn_lines": self.torn,
                "spools_waiting": self.spools,
                "trouble": "; ".join(f"{part}: {what}" for part, what in sorted(self.trouble.items())),
            },
        )

    # --- running ----------------------------------------------------------------------------------------------------

    def stop(self, *_: object) -> None:
        """End after the current batch; fit to be a signal's handler."""
        self._stop.set()

    def run(self) -> None:
        """Drain until `stop`; trouble of a store is waited out."""
        keeper = threading.Thread(target=self._keep, name="reaper", daemon=True)
        keeper.start()
        pause = BACK_OFF_S[0]
        due = 0.0
        prepared = False
        while not self._stop.is_set():
            self._turned = time.monotonic()
            try:
                if not prepared:
                    self.prepare()
                    prepared = True
                taken = self.drain()
                self.trouble.pop("posting", None)
                pause = BACK_OFF_S[0]
                if 0 < taken < self._batch:
                    self._stop.wait(PACE_S)
            except (RedisError, SQLAlchemyError, OSError) as error:
                self._tell("posting", error)
                self._stop.wait(pause)
                pause = min(pause * 2, BACK_OFF_S[1])
            if time.monotonic() >= due:
                due = time.monotonic() + TICK_S
                if self._catch_up is not None:
                    self._try("publication", self._catch_up)
                self._try("recount", self.recount)  # needs what was published, and is needed to settle spools
                self._try("spool", self.clean)
                self._try("alerts", self.alert)
        keeper.join(timeout=10)
        self._try("leaving", self.leave)

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._try("reaper", self.reap)
            self._try("report", self.report)
            self._try("time", self._watch.look)
            self._stop.wait(TICK_S)

    def _try(self, part: str, work: Callable[[], object]) -> None:
        try:
            work()
            self.trouble.pop(part, None)
        except Exception as error:  # the other parts go on
            self._tell(part, error)

    def _tell(self, part: str, error: Exception, **more: object) -> None:
        """Log trouble once in ten seconds and leave it for the status page."""
        self.trouble[part] = type(error).__name__
        if time.monotonic() - self._told.get(part, -60.0) > 10:
            self._told[part] = time.monotonic()
            log.error("trouble in the drainer", part=part, error=_reason(error), kind=type(error).__name__, **more)


def _entries(answer: Any) -> list[Entry]:
    """The entries in an answer of XREADGROUP on one stream."""
    if not answer:
        return []
    found = next(iter(answer.values())) if isinstance(answer, dict) else answer[0][1]
    if found and isinstance(found[0], list) and found[0] and isinstance(found[0][0], list | tuple):
        found = found[0]  # one list a stream, of lists of entries
    return [_entry(entry) for entry in found]


def _entry(entry: Any) -> Entry:
    id, fields = entry
    if not fields:
        return Entry(_bytes(id), None)
    # An entry without our field is no event; what it has instead goes to the dead letters.
    return Entry(_bytes(id), fields[b"e"] if b"e" in fields else repr(fields).encode())


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _order(id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _reason(error: Exception) -> str:
    """The error in one line, without the SQL and parameters that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0][:500]


def _now_ms() -> int:
    return clock.now_ms()


def main() -> None:
    """Run until SIGTERM or SIGINT, which end it after the current batch."""
    config = process.start("drainer")
    app = process.application()
    with app.app_context():
        from app.domain import alerts

        drainer = Drainer(
            config.redis_url, config.spool_dir, catch_up=_catch_up, alert=_raise_alerts, exhausted=alerts.exhausted
        )
        signal.signal(signal.SIGTERM, drainer.stop)
        signal.signal(signal.SIGINT, drainer.stop)
        log.info("the drainer drains", name=drainer.name)
        drainer.run()
        log.info("the drainer has stopped", posted=drainer.posted)


def _catch_up() -> None:
    from app.domain import denials, publication
    from app.extensions import db

    try:
        publication.catch_up()
        denials.write_down()
    finally:
        db.session.remove()


def _raise_alerts(charged: Collection[Counter], exhausted: Collection[Scope]) -> None:
    from app.domain import alerts
    from app.extensions import db

    try:
        alerts.raise_for(charged, exhausted)
    finally:
        db.session.remove()


if __name__ == "__main__":
    main()
