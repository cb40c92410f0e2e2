"""The stream of usage events: takes batches from Redis, has them posted, and only then removes them.

The promise: an event is in the stream or in the ledger at every instant, so a drainer that is killed at any step loses
none; the next drainer takes its batch over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis, ResponseError

from app import clock, store
from app.jobs.bookkeeper import BATCH, Bookkeeper
from app.runtime import failpoints

BLOCK_MS = 250
CLAIM_AFTER_MS = 5_000  # a batch that takes longer can be posted twice, which changes nothing
CLAIM_EVERY_S = 1.0
FORGOTTEN_MS = 3_600_000  # a drainer that was idle for this long has died


class Entry(NamedTuple):
    """One entry of the stream; None for one that was deleted meanwhile."""

    id: bytes
    raw: bytes | None


class Stream:
    """One drainer's consumer of the stream. Any number of drainers can run; Redis gives each entry to one of them.

    `drain` and `drain_all` need an application context, the others Redis only.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        bookkeeper: Bookkeeper,
        *,
        batch: int = BATCH,
        claim_after_ms: int = CLAIM_AFTER_MS,
    ) -> None:
        self._redis = redis
        self._name = name
        self._bookkeeper = bookkeeper
        self._batch = batch
        self._claim_after_ms = claim_after_ms
        self._behind = True  # entries of our own may be pending
        self._claim_at = 0.0
        self.drained_ms = clock.now_ms()

    def prepare(self) -> None:
        """Create the stream's group unless it exists: at the start, and after Redis lost everything."""
        try:
            self._redis.xgroup_create(store.USAGE, store.USAGE_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def drain(self, block_ms: int = BLOCK_MS) -> int:
        """Take one batch, post it, then remove it from the stream; return how many entries it had.

        Raises Redis's and SQLAlchemy's errors, after which everything is still in the stream.
        """
        entries = self._take(block_ms)
        if not entries:
            self.drained_ms = clock.now_ms()
            return 0
        self._behind = True
        self._bookkeeper.post_raw(
            (f"stream {entry.id.decode()}", entry.raw) for entry in entries if entry.raw is not None
        )
        failpoints.reach("committed")
        self._acknowledge([entry.id for entry in entries])
        self._behind = False
        self.drained_ms = clock.now_ms()
        return len(entries)

    def drain_all(self) -> None:
        """Drain until the stream is empty, entries of dead drainers included."""
        self._claim_at = 0.0
        while self.drain(block_ms=1):
            self._claim_at = 0.0

    def leave(self) -> None:
        """Remove our name from the group unless entries are pending under it, and the names of drainers long gone."""
        for consumer in self._redis.xinfo_consumers(store.USAGE, store.USAGE_GROUP):
            name = _bytes(consumer["name"]).decode()
            if not consumer["pending"] and (name == self._name or consumer["idle"] > FORGOTTEN_MS):
                self._redis.xgroup_delconsumer(store.USAGE, store.USAGE_GROUP, name)

    def newest(self) -> bytes:
        """The id of the newest entry: a mark for `is_drained_to`."""
        newest = self._redis.xrevrange(store.USAGE, count=1)
        return _bytes(newest[0][0]) if newest else b"0-0"

    def is_drained_to(self, mark: bytes) -> bool:
        """Whether the ledger has all that was in the stream when `mark` was its newest entry."""
        oldest = self._oldest()
        return oldest is None or oldest > _order(mark)

    def oldest_ms(self) -> int | None:
        """When the oldest waiting entry was added, in Unix ms; None if there is none."""
        oldest = self._oldest()
        return oldest[0] if oldest else None

    def length(self) -> int:
        """The number of waiting entries."""
        return int(self._redis.xlen(store.USAGE))

    def _oldest(self) -> tuple[int, int] | None:
        oldest = self._redis.xrange(store.USAGE, count=1)
        return _order(_bytes(oldest[0][0])) if oldest else None

    def _take(self, block_ms: int) -> list[Entry]:
        """Entries that this drainer has already claimed, else those of a dead drainer, else new ones."""
        try:
            if self._behind:
                if mine := _entries(self._read("0", None)):
                    return mine
                self._behind = False
            if time.monotonic() >= self._claim_at:
                claimed = self._redis.xautoclaim(
                    store.USAGE, store.USAGE_GROUP, self._name, self._claim_after_ms, "0-0", count=self._batch
                )
                if entries := [_entry(entry) for entry in claimed[1]]:
                    return entries
                self._claim_at = time.monotonic() + CLAIM_EVERY_S
            return _entries(self._read(">", block_ms))
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self.prepare()
            return []

    def _read(self, since: str, block_ms: int | None) -> Any:
        return self._redis.xreadgroup(
            store.USAGE_GROUP, self._name, {store.USAGE: since}, count=self._batch, block=block_ms or None
        )

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        with self._redis.pipeline(transaction=True) as pipe:  # an acknowledged entry must not stay behind
            pipe.xack(store.USAGE, store.USAGE_GROUP, *ids)
            pipe.xdel(store.USAGE, *ids)
            pipe.execute()


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
    """The parts of an entry's id: milliseconds since 1970, and a sequence number. Ids compare by them."""
    milliseconds, _, sequence = id.partition(b"-")
    return int(milliseconds), int(sequence or 0)
