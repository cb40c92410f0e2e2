"""The bookkeeper: posts the events of the stream and the spool files to the ledger.

The promise: one ledger row per (request, attempt, kind) however often it is delivered. An event that can't be read or that
the database refuses becomes a dead letter: it delays no other event and is never lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import structlog
from sqlalchemy.exc import DataError

from app.jobs.trouble import reason_of
from app.ledger import posting
from app.ledger.spools import Poison, decode
from app.metering.usage import UsageEvent

BATCH = 1000  # events per transaction, at most

# Errors caused by an event itself. Any other error is a problem of the database, and posting is retried.
_POISON = (DataError, OverflowError, UnicodeError)

Counter = tuple[str, str, str]  # scope kind, scope id, period name

log = structlog.get_logger(__name__)


class Record(NamedTuple):
    """An event as it was delivered."""

    source: str  # the stream entry or spool file that it comes from, for its dead letter
    raw: bytes
    event: UsageEvent


class Bookkeeper:
    """Posts events in batches. Needs an application context; raises SQLAlchemy's errors while the database is away."""

    def __init__(self, batch: int = BATCH) -> None:
        self._batch = batch
        self.posted = self.dead = 0
        self.charged: set[Counter] = set()  # the counters charged by posted events, until `Alerts` takes them

    def post_raw(self, raws: Iterable[tuple[str, bytes]]) -> None:
        """Post (source, raw event) pairs in one transaction; those that can't be decoded become dead letters."""
        self._post(
            [Record(source, raw, event) for source, raw in raws if (event := self._read(source, raw)) is not None]
        )

    def post_spooled(self, file: str, events: Sequence[UsageEvent]) -> None:
        """Post events of a spool file, one transaction per batch."""
        for start in range(0, len(events), self._batch):
            batch = events[start : start + self._batch]
            self._post([Record(_spool(file), msgspec.json.encode(event), event) for event in batch])

    def read_spooled(self, file: str, lines: Iterable[bytes]) -> Iterator[UsageEvent]:
        """The events in lines of a spool file; lines that can't be decoded become dead letters."""
        for line in lines:
            if (event := self._read(_spool(file), line)) is not None:
                yield event

    def _read(self, source: str, raw: bytes) -> UsageEvent | None:
        try:
            return decode(raw)
        except Poison as error:
            self._bury(source, raw, str(error))
            return None

    def _post(self, records: Sequence[Record]) -> None:
        """Post, and when the database refuses what is in an event, halve the batch until that event is alone."""
        if not records:
            return
        try:
            self.posted += posting.post([record.event for record in records])
            self.charged.update(*(record.event.scopes for record in records))
        except _POISON as error:
            if len(records) == 1:
                self._bury(records[0].source, records[0].raw, reason_of(error))
                return
            middle = len(records) // 2
            self._post(records[:middle])
            self._post(records[middle:])

    def _bury(self, source: str, raw: bytes, reason: str) -> None:
        posting.bury(source, raw, reason)
        self.dead += 1
        log.error("a usage event became a dead letter", source=source, reason=reason)


def _spool(file: str) -> str:
    return f"spool {file}"
