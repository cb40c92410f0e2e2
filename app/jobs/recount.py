"""The recount: opens the meter again after Redis lost its counters or was restarted.

The promise: nothing that costs money is let in until the counters hold all that the stream, the spool files and the
ledger know (`app.ledger.recount` counts; here are the hands that it needs).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from redis import Redis

from app import store
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.stream import Stream
from app.ledger import recount
from app.metering.usage import UsageEvent


def open_meter(redis: Redis, spool_dir: Path, stream: Stream, bookkeeper: Bookkeeper) -> None:
    """Count the meter's counters anew, if it is closed, and open it. Needs an application context."""
    if recount.is_open(redis) or not redis.exists(store.DIRECTORY_VERSION):
        return  # the limits have to be there before anything is let in
    stream.prepare()
    post = partial(bookkeeper.post_spooled, "recount")
    recount.recount(redis, spool_dir, stream.drain_all, post, lambda path: _events(path, bookkeeper))


def _events(path: Path, bookkeeper: Bookkeeper) -> Iterator[UsageEvent]:
    """A spool file's events, its writer alive or not; a last line that is still being written waits."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    yield from bookkeeper.read_spooled(path.name, lines)
