"""The janitor: replays the spool files of processes that have ended, and deletes them.

The promise: a process killed at any instant loses no usage event that it had written to its spool. Each line is settled
with the meter and posted once; the ledger is asked first, so nothing is charged twice however late the file is found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from redis import ResponseError

from app import store
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.stream import Stream
from app.jobs.trouble import Trouble
from app.ledger import posting, spools
from app.ledger.spools import Poison, decode
from app.metering.reservations import Meter
from app.metering.usage import UsageEvent

DOUBTFUL_S = 60.0  # how long it waits for the ledger to get a spool line that the meter has settled

log = structlog.get_logger(__name__)


class Janitor:
    """Cleans one host's spool folder. Needs an application context; raises Redis's and SQLAlchemy's errors."""

    def __init__(self, spool_dir: Path, meter: Meter, stream: Stream, bookkeeper: Bookkeeper, trouble: Trouble) -> None:
        self._spool_dir = spool_dir
        self._meter = meter
        self._stream = stream
        self._bookkeeper = bookkeeper
        self._trouble = trouble
        self._marks: dict[Path, bytes] = {}  # the newest event of the stream when the file was found closed
        self._doubtful: dict[Path, float] = {}  # since when it waits for lines of a file
        self.replayed = self.torn = 0
        self.waiting = 0  # remaining files after the last run

    def clean(self) -> int:
        """Replay and delete the spool files without a writer; return how many were deleted."""
        done = 0
        found = spools.files(self._spool_dir)
        self._marks = {path: mark for path, mark in self._marks.items() if path in found}
        self._doubtful = {path: since for path, since in self._doubtful.items() if path in found}
        self.waiting = 0
        for path in found:
            with spools.closed(path) as file:
                if file is None:
                    continue
                if self._replay(path, file):
                    path.unlink()
                    done += 1
                else:
                    self.waiting += 1
        return done

    def _replay(self, path: Path, file: int) -> bool:
        """Settle and post the events of one file that the ledger lacks; return whether the file can be deleted.

        The ledger is only asked once it has all that was in the stream when the file was found closed: an event that
        it lacks then was never settled. The meter alone could not tell, as its tombstones do not last.
        """
        if path not in self._marks:
            self._marks[path] = self._stream.newest()
        if not self._stream.is_drained_to(self._marks[path]):
            return False
        events = list(self._events(path.name, file))
        known = posting.known(events)
        unknown = [event for event in events if (event.request_id, event.kind) not in known]
        settled = [event for event in unknown if self._settle(path.name, event)]
        settled_names = {(event.request_id, event.kind) for event in settled}
        if settled:
            log.warning("spooled events were settled for a process that died", file=path.name, events=len(settled))
            self.replayed += len(settled)
        doubtful = [event for event in unknown if (event.request_id, event.kind) not in settled_names]
        if doubtful:
            # Another process has just settled it: its event, the correct one, is in the stream.
            since = self._doubtful.setdefault(path, time.monotonic())
            if time.monotonic() - since < DOUBTFUL_S:
                self._marks[path] = self._stream.newest()
                self._bookkeeper.post_spooled(path.name, settled)
                return False
            log.error("settled events were missing from the ledger", file=path.name, events=len(doubtful))
        self._bookkeeper.post_spooled(path.name, unknown)
        return True

    def _settle(self, file: str, event: UsageEvent) -> bool:
        """Settle an event with the meter; return whether it was settled now. An event that the meter refuses delays no other,
        and is posted anyway."""
        try:
            return self._meter.settle_event(event)
        except ResponseError as error:
            if store.is_not_serving(error):
                raise
            self._trouble.note("spool", error, file=file, request_id=event.request_id)
            return False

    def _events(self, name: str, file: int) -> Iterator[UsageEvent]:
        """The file's events. Its writer died while it wrote a last line without an end, before it could settle it."""
        size = os.fstat(file).st_size
        lines = os.pread(file, size, 0).split(b"\n")
        last = lines.pop()
        yield from self._bookkeeper.read_spooled(name, lines)
        if last:
            try:
                yield decode(last)
            except Poison:
                self.torn += 1
                log.warning("the last line of a spool file was cut", file=name, bytes=len(last))
