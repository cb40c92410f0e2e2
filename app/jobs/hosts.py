"""Which other hosts have a drainer, so that a recount waits for what they alone have: their spools and their workers' holds.

A host is a spool folder. Each drainer changes its beat once a second; whoever has seen it change lately remembers it, also
when Redis has just lost everything.
"""

from __future__ import annotations

import itertools
import socket
import time
from pathlib import Path

from redis import Redis

from app import store

SEEN_S = 15.0  # how long a host is remembered after its last beat


class Hosts:
    """One drainer's view of the others. Raises `RedisError`."""

    def __init__(self, redis: Redis, spool_dir: Path) -> None:
        self._redis = redis
        self.own = f"{socket.gethostname()}:{spool_dir}"
        self._beats = itertools.count(time.monotonic_ns())  # a drainer that starts again begins elsewhere
        self._seen: dict[str, tuple[str, float]] = {}  # host -> its last beat, and when that was new

    @property
    def others(self) -> set[str]:
        """The hosts that have beaten lately."""
        earliest = time.monotonic() - SEEN_S
        return {name for name, (_, at) in self._seen.items() if at >= earliest}

    def beat(self) -> None:
        """Tell of this host and look at the others; forget those that are silent."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(store.HOSTS, self.own, next(self._beats))
            pipe.hgetall(store.HOSTS)
            _, told = pipe.execute()
        beats = {_text(name): _text(beat) for name, beat in told.items()}
        for name in beats.keys() - {self.own}:
            if name not in self._seen or self._seen[name][0] != beats[name]:
                self._seen[name] = (beats[name], time.monotonic())
        for name in self._seen.keys() - self.others:
            del self._seen[name]
            self._redis.hdel(store.HOSTS, name)

    def leave(self) -> None:
        """This host's drainer ends."""
        self._redis.hdel(store.HOSTS, self.own)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
