"""The recount: opens the meter again after Redis lost its counters or was restarted.

The promise: no request that costs money is admitted until the counters include everything in the stream, the spool files
and the ledger. `app.ledger.recount` counts; this module gives it the stream and the spool files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from redis import Redis

from app import store
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.hosts import Hosts
from app.jobs.stream import Stream
from app.ledger import recount
from app.metering.usage import UsageEvent


def open_meter(redis: Redis, spool_dir: Path, stream: Stream, bookkeeper: Bookkeeper, hosts: Hosts) -> None:
    """Recount and open a closed meter, or take part while another host does. Needs an application context; raises Redis's
    and SQLAlchemy's errors."""
    if recount.is_open(redis) or not redis.exists(store.DIRECTORY_VERSION):
        return  # the limits must be published before any request is admitted
    stream.prepare()
    post = partial(bookkeeper.post_spooled, "recount")
    lines = partial(_events, bookkeeper=bookkeeper)
    if not recount.recount(redis, spool_dir, stream.drain_all, post, lines, hosts.others):
        recount.take_part(redis, spool_dir, hosts.own, post, lines)


def _events(path: Path, bookkeeper: Bookkeeper) -> Iterator[UsageEvent]:
    """A spool file's events, with or without a writer; a last line that is still being written is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return
    yield from bookkeeper.read_spooled(path.name, lines)
