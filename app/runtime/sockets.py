"""Writes and waits on gevent's sockets with the fewest system calls and timers.

gevent's own `sendall` first reads the socket's buffer sizes, its `recv` tries before it waits, and each wait has a timer
of its own. On the busiest paths each of these costs more than the Python around it.
"""

from __future__ import annotations

import time
from select import POLLIN
from typing import Any

from gevent import getcurrent
from gevent.hub import get_hub
from gevent.monkey import get_original
from gevent.socket import socket as Socket

READ_BYTES = 65_536


_poll = get_original("select", "poll")


def is_silent(sock: Any) -> bool:
    """Whether there is nothing to read on a connection, not even its end."""
    poll = _poll()
    poll.register(sock.fileno(), POLLIN)
    return not poll.poll(0)


def send(sock: Any, data: bytes) -> None:
    """Send all of `data`, in one system call if the kernel takes it. Raises what `sendall` raises."""
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
    """The timeout for silent peers: one timer serves all waiting greenlets, accurate to a quarter of the timeout.

    It belongs to the event loop of one thread and has one read buffer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._interval = min(seconds / 4, 1.0)
        self._since: dict[Any, float] = {}
        self._timer: Any = None
        self._buffer = memoryview(bytearray(READ_BYTES))

    def receive(self, sock: Any, until: float | None = None, *, patiently: bool = False) -> bytes:
        """Wait for and return the next bytes of a socket whose buffer has been read empty.

        It waits until `until` at most (`time.monotonic`), and if `patiently` for as long, whatever the timeout. Raises what
        `recv` raises, among them `TimeoutError`.
        """
        now = time.monotonic()
        if until is not None and until <= now:
            raise TimeoutError("timed out")
        if type(sock) is not Socket:
            return self._receive_tls(sock, until, patiently)
        greenlet = getcurrent()
        watcher, since = sock._read_event, self._since
        if self._timer is None:
            self._timer = get_hub().loop.timer(self._interval, self._interval)
            self._timer.start(self._time_out)
        while True:
            if until is None:
                since[greenlet] = now
            else:
                latest = until - self._seconds
                since[greenlet] = latest if patiently or latest < now else now
            watcher.start(greenlet.switch)
            try:
                sock.hub.switch()
            finally:
                watcher.stop()
                del since[greenlet]
            try:
                size = sock._sock.recv_into(self._buffer)
            except BlockingIOError:  # woken without data
                now = time.monotonic()
                continue
            return bytes(self._buffer[:size])

    def _receive_tls(self, sock: Any, until: float | None, patiently: bool) -> bytes:
        if until is not None:
            left = until - time.monotonic()
            sock.settimeout(max(left if patiently else min(self._seconds, left), 0.001))
        try:
            data: bytes = sock.recv(READ_BYTES)
        finally:
            if until is not None:
                sock.settimeout(self._seconds)
        return data

    def _time_out(self) -> None:
        if not self._since:
            self._timer.close()
            self._timer = None
            return
        latest = time.monotonic() - self._seconds
        for greenlet in [greenlet for greenlet, since in self._since.items() if since <= latest]:
            greenlet.throw(TimeoutError("timed out"))
