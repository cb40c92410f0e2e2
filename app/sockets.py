"""Writing and waiting on gevent's sockets with as few questions to the kernel, and as few timers, as there can be.

gevent's own `sendall` first asks the socket for its sizes, its `recv` tries before it waits, and each wait has a timer
of its own. On the busiest paths each of them costs more than all that Python does around it.
"""

from __future__ import annotations

import time
from typing import Any

from gevent import getcurrent
from gevent.hub import get_hub
from gevent.socket import socket as Socket

READ_BYTES = 65_536


def send(sock: Any, data: bytes) -> None:
    """All of `data`, at once where the kernel takes it. Raises what `sendall` raises."""
    if type(sock) is not Socket:  # TLS has a buffer of its own
        sock.sendall(data)
        return
    try:
        sent = sock._sock.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


class Patience:
    """How long peers may be silent, with one timer for all that are waited for; it is right to a quarter.

    It belongs to the event loop of one thread, and has one buffer for all it hears.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._interval = min(seconds / 4, 1.0)
        self._since: dict[Any, float] = {}
        self._timer: Any = None
        self._heard = memoryview(bytearray(READ_BYTES))

    def receive(self, sock: Any, until: float | None = None) -> bytes:
        """What comes next, on a socket from which everything that had come was read; waits until `until` at the most, on
        the clock of `time.monotonic`. Raises what `recv` raises."""
        if until is not None and until <= time.monotonic():
            raise TimeoutError("timed out")
        if type(sock) is not Socket:
            return self._receive_tls(sock, until)
        greenlet = getcurrent()
        watcher, since = sock._read_event, self._since
        if self._timer is None:
            self._timer = get_hub().loop.timer(self._interval, self._interval)
            self._timer.start(self._look)
        while True:
            now = time.monotonic()
            since[greenlet] = now if until is None else min(now, until - self._seconds)
            watcher.start(greenlet.switch)
            try:
                sock.hub.switch()
            finally:
                watcher.stop()
                del since[greenlet]
            try:
                size = sock._sock.recv_into(self._heard)
            except BlockingIOError:  # somebody else woke us
                continue
            return bytes(self._heard[:size])

    def _receive_tls(self, sock: Any, until: float | None) -> bytes:
        if until is not None:
            sock.settimeout(max(min(self._seconds, until - time.monotonic()), 0.001))
        try:
            data: bytes = sock.recv(READ_BYTES)
        finally:
            if until is not None:
                sock.settimeout(self._seconds)
        return data

    def _look(self) -> None:
        if not self._since:
            self._timer.close()
            self._timer = None
            return
        latest = time.monotonic() - self._seconds
        for greenlet in [greenlet for greenlet, since in self._since.items() if since <= latest]:
            greenlet.throw(TimeoutError("timed out"))
