"""Which background processes run: each tells of itself every few seconds, in a key of Redis that does not last.

A process beats from the loop that does its work, so that one which stands still is missed like one which is gone.
"""

from __future__ import annotations

import os
import socket

from redis import Redis

from app import store

PROCESSES = ("drainer", "worker", "clock")  # of the Procfile, besides those that serve
EVERY_S = 5.0  # a beat at least
LAST_MS = 15_000


def beat(redis: Redis, process: str) -> None:
    """Tell that a process of that name runs."""
    redis.set(store.heartbeat(process), f"{socket.gethostname()} {os.getpid()}", px=LAST_MS)


def missing(redis: Redis) -> list[str]:
    """The processes of which none has told of itself lately."""
    told = redis.mget([store.heartbeat(process) for process in PROCESSES])
    return [process for process, who in zip(PROCESSES, told, strict=True) if who is None]
