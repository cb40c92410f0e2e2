"""The drainer of the Procfile: assembles the parts that post usage into the ledger and clean up after dead processes.

A loop drains the stream and, every second, publishes pending changes, recounts the meter if Redis was lost, replays spool
files of dead processes and raises alerts. A second thread, which no database can delay, reaps holds, sends heartbeats and
watches the clocks. Each part has a module of its own, and an error in one does not stop the others.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import current, store
from app.jobs import process, recount
from app.jobs.alerts import Alerts, Scope
from app.jobs.bookkeeper import BATCH, Bookkeeper, Counter
from app.jobs.heartbeat import Heartbeat
from app.jobs.hosts import Hosts
from app.jobs.janitor import Janitor
from app.jobs.logbook import Logbook
from app.jobs.reaper import Reaper
from app.jobs.stream import CLAIM_AFTER_MS, Stream
from app.jobs.trouble import Trouble
from app.ledger.recount import server_run
from app.metering.reservations import Meter
from app.runtime import timekeeping
from app.runtime.ids import new_id

PACE_S = 0.25  # events that arrive meanwhile are posted together: a transaction costs much more than an event
TICK_S = 1.0
BACK_OFF_S = (0.1, 5.0)  # first and longest pause while a store is away

log = structlog.get_logger("app.jobs.drainer")  # run as a script, the module has another name

Job = tuple[str, Callable[[], object]]  # the part's name, and its work


class Drainer:
    """One drainer, its parts made from the settings. Any number may run at once.

    Without `catch_up` nothing is published, without `raise_alerts` nobody is notified, and without `keep_logs_days` log lines
    stay in Redis. `run` and `recount` need an application context.
    """

    def __init__(
        self,
        url: str,
        spool_dir: Path,
        *,
        meter: Meter | None = None,
        catch_up: Callable[[], object] = lambda: None,
        raise_alerts: Callable[[Collection[Counter], Collection[Scope]], object] = lambda charged, exhausted: None,
        exhausted: Callable[[], Collection[Scope]] = tuple,
        keep_logs_days: Callable[[], int] | None = None,
        batch: int = BATCH,
        claim_after_ms: int = CLAIM_AFTER_MS,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        redis = store.connect_pool(url, protocol=2, legacy_responses=False, socket_timeout=5, socket_connect_timeout=5)
        meter = meter or Meter(redis.execute_command, lambda: server_run(redis))
        self.trouble = Trouble()
        self.bookkeeper = Bookkeeper(batch)
        self.stream = Stream(redis, self.name, self.bookkeeper, batch=batch, claim_after_ms=claim_after_ms)
        self.janitor = Janitor(spool_dir, meter, self.stream, self.bookkeeper, self.trouble)
        self.reaper = Reaper(meter, spool_dir, self.trouble)
        self.heartbeat = Heartbeat(
            redis, self.name, self.stream, self.bookkeeper, self.janitor, self.reaper, self.trouble
        )
        self.hosts = Hosts(redis, spool_dir)
        self._redis = redis
        self._spool_dir = spool_dir
        self._batch = batch
        self._stop = threading.Event()
        # In the loop, in this order: a recount needs what was published, and spools need an open meter to be settled.
        self._chores: list[Job] = [
            ("publication", catch_up),
            ("hosts", self.hosts.beat),
            ("recount", self.recount),
            ("spool", self.janitor.clean),
            ("alerts", Alerts(self.stream, self.bookkeeper, raise_alerts, exhausted).look),
        ]
        if keep_logs_days is not None:
            self._chores.append(("log", Logbook(redis, keep_logs_days).write))
        # Beside the loop: what needs Redis only.
        self._watches: list[Job] = [
            ("reaper", self.reaper.reap),
            ("report", self.heartbeat.report),
            ("time", timekeeping.Watch(redis).look),
        ]

    def recount(self) -> None:
        """Recount the meter's counters if Redis lost them or was restarted, and open it."""
        recount.open_meter(self._redis, self._spool_dir, self.stream, self.bookkeeper, self.hosts)

    def stop(self, *_: object) -> None:
        """End `run` after the current batch. It can be a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Drain until `stop`. While a store is unreachable, wait and retry."""
        watcher = threading.Thread(target=self._watch, name="reaper", daemon=True)
        watcher.start()
        pause = BACK_OFF_S[0]
        due = 0.0
        prepared = False
        while not self._stop.is_set():
            self.heartbeat.turn()
            try:
                if not prepared:
                    self.stream.prepare()
                    prepared = True
                taken = self.stream.drain()
                self.trouble.clear("posting")
                pause = BACK_OFF_S[0]
                if 0 < taken < self._batch:
                    self._stop.wait(PACE_S)
            except (RedisError, SQLAlchemyError, OSError) as error:
                self.trouble.note("posting", error)
                self._stop.wait(pause)
                pause = min(pause * 2, BACK_OFF_S[1])
            if time.monotonic() >= due:
                due = time.monotonic() + TICK_S
                self._work(self._chores)
        watcher.join(timeout=10)
        self.trouble.attempt("leaving", self.stream.leave)
        self.trouble.attempt("leaving", self.hosts.leave)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._work(self._watches)
            self._stop.wait(TICK_S)

    def _work(self, jobs: list[Job]) -> None:
        for part, work in jobs:
            self.trouble.attempt(part, work)


def main() -> None:
    """Run until SIGTERM or SIGINT, which end it after the current batch."""
    config = process.start("drainer")
    app = process.application()
    with app.app_context():
        from app.workflows import alerts

        drainer = Drainer(
            config.redis_url,
            config.spool_dir,
            catch_up=_catch_up,
            raise_alerts=_raise_alerts,
            exhausted=alerts.exhausted,
            keep_logs_days=lambda: current.config().log.retention_days,
        )
        signal.signal(signal.SIGTERM, drainer.stop)
        signal.signal(signal.SIGINT, drainer.stop)
        log.info("the drainer has started", name=drainer.name)
        drainer.run()
        log.info("the drainer has stopped", posted=drainer.bookkeeper.posted)


def _catch_up() -> None:
    from app.extensions import db
    from app.workflows import denials, publication

    try:
        publication.catch_up()
        denials.write_down()
    finally:
        db.session.remove()


def _raise_alerts(charged: Collection[Counter], exhausted: Collection[Scope]) -> None:
    from app.extensions import db
    from app.workflows import alerts

    try:
        alerts.raise_for(charged, exhausted)
    finally:
        db.session.remove()


if __name__ == "__main__":
    main()
