"""Which background processes run: each refreshes an expiring key in Redis every few seconds.

A process beats from the loop that does its work, so that a hung process is missed as well as a dead one.
"""

from __future__ import annotations

import os
import socket

from redis import Redis

from app import store

PROCESSES = ("drainer", "worker", "clock")  # of the Procfile, besides the web processes
EVERY_S = 5.0  # the longest time between two beats
LAST_MS = 15_000


def beat(redis: Redis, process: str) -> None:
    """Record that the process with that name runs."""
    redis.set(store.heartbeat(process), f"{socket.gethostname()} {os.getpid()}", px=LAST_MS)


def missing(redis: Redis) -> list[str]:
    """The processes without a recent beat."""
    beats = redis.mget([store.heartbeat(process) for process in PROCESSES])
    return [process for process, beat in zip(PROCESSES, beats, strict=True) if beat is None]
