"""The hot side's Redis: one connection a process, shared by all its greenlets, pipelined by itself.

Commands given within one turn of the event loop leave in one write, which costs a tenth of a connection and a
round trip each. Everything sent here must be safe to send twice: a command lost with its connection is repeated
once on a new one. Handshake, TLS and addresses are redis-py's; parsing and packing are hiredis's.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any

import gevent
import hiredis
import redis
from gevent import getcurrent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.lock import RLock
from gevent.socket import socket as GeventSocket
from redis.connection import ConnectionPool

from app.sockets import send

RedisReply = Any

AGAIN_S = 0.5  # how long after a failed connection none is tried


class RedisAway(Exception):
    """Redis can't be reached, or did not answer in time."""


class _Waiter:
    """A greenlet waiting for one reply."""

    __slots__ = ("done", "greenlet", "packed", "reply", "sent_at")

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.greenlet: Any = getcurrent()
        self.reply: RedisReply = None
        self.done = False
        self.sent_at = time.monotonic()

    def resume(self) -> None:
        if self.greenlet is not None:
            self.greenlet.switch()


class _Link:
    """One live connection: what is to be sent, and who waits for what in order."""

    def __init__(self, pool: ConnectionPool, timeout_s: float) -> None:
        connection: Any = pool.make_connection()
        try:
            connection.connect()
            info = _command(connection, "INFO", "server")
            self.run_id = _field(info, "run_id")
        except (redis.RedisError, OSError) as error:
            connection.disconnect()
            raise RedisAway(str(error)) from None
        self._connection = connection  # keeps the socket open
        self._socket = _cooperative(connection._sock)
        self._socket.settimeout(None)
        self._timeout_s = timeout_s
        self._out: list[bytes] = []
        self._pending: deque[_Waiter] = deque()
        self._wake = Event()
        self._heard_at = 0.0
        self.broken = False
        self._tasks = [gevent.spawn(self._write), gevent.spawn(self._read), gevent.spawn(self._watch)]

    def send(self, waiter: _Waiter) -> None:
        self._out.append(waiter.packed)
        self._pending.append(waiter)
        self._wake.set()

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            out, self._out = self._out, []
            try:
                send(self._socket, out[0] if len(out) == 1 else b"".join(out))
            except OSError as error:
                self.close(error)
                return

    def _read(self) -> None:
        reader = hiredis.Reader(notEnoughData=_NOTHING)
        loop = get_hub().loop
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                self.close(error)
                return
            if not data:
                self.close(ConnectionResetError("closed by Redis"))
                return
            self._heard_at = time.monotonic()
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                waiter = self._pending.popleft()
                waiter.reply, waiter.done = reply, True
                loop.run_callback(waiter.resume)

    def _watch(self) -> None:
        """One timer for all: the oldest unanswered command tells whether Redis still answers."""
        while not self.broken:
            gevent.sleep(self._timeout_s / 4)
            if self._pending and self._is_silent(max(self._pending[0].sent_at, self._heard_at)):
                self.close(TimeoutError("no answer in time"))

    def _is_silent(self, since: float) -> bool:
        """Whether Redis has said nothing for too long. An answer that this busy process has not read yet is one."""
        if time.monotonic() - since <= self._timeout_s:
            return False
        plain = getattr(self._socket, "_sock", None)
        if plain is None or hasattr(self._socket, "getpeercert"):
            return True
        try:
            plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False  # the reader is told of it too
        return False

    def close(self, reason: Exception) -> None:
        if self.broken:
            return
        self.broken = True
        current = getcurrent()
        for task in self._tasks:
            if task is not current:
                task.kill(block=False)
        self._socket.close()
        self._connection.disconnect()
        loop = get_hub().loop
        while self._pending:
            waiter = self._pending.popleft()
            waiter.reply, waiter.done = RedisAway(str(reason)), True
            loop.run_callback(waiter.resume)


_NOTHING = object()


class RedisWire:
    """`call` is all there is; it may be used from any greenlet of the process."""

    def __init__(self, url: str, timeout_s: float = 2.0) -> None:
        self._pool = ConnectionPool.from_url(
            url, protocol=2, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, client_name="portico-hot"
        )
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting = RLock()
        self._failed_at = 0.0

    @property
    def run_id(self) -> str:
        """The server's run id as of this connection: a restarted server has another. Raises `RedisAway`."""
        return self._linked().run_id

    def call(self, *command: str | bytes | int) -> RedisReply:
        """Send one command and wait for its reply, an error reply being raised as `hiredis.ReplyError`.

        Raises `RedisAway` when there is no answer within the timeout, after one repeat on a new connection.
        """
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        for last_try in (False, True):
            waiter = _Waiter(packed)
            self._linked().send(waiter)
            try:
                while not waiter.done:
                    get_hub().switch()
            finally:
                waiter.greenlet = None
            if not isinstance(waiter.reply, Exception):
                return waiter.reply
            if last_try or not isinstance(waiter.reply, RedisAway):
                raise waiter.reply
        raise AssertionError("unreachable")

    def _linked(self) -> _Link:
        link = self._link
        if link is not None and not link.broken:
            return link
        with self._connecting:
            if self._link is None or self._link.broken:
                # A server that is away is not asked again by every waiting call.
                if time.monotonic() - self._failed_at < AGAIN_S:
                    raise RedisAway("no connection")
                try:
                    self._link = _Link(self._pool, self._timeout_s)
                except RedisAway:
                    self._failed_at = time.monotonic()
                    raise
            return self._link

    def close(self) -> None:
        if self._link is not None:
            self._link.close(ConnectionAbortedError("closed here"))


def _cooperative(sock: Any) -> Any:
    """redis-py's socket as one that yields to other greenlets, also where the process is not patched."""
    if isinstance(sock, GeventSocket) or not isinstance(sock, socket.socket) or hasattr(sock, "getpeercert"):
        return sock
    return GeventSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def _command(connection: Any, *command: str) -> bytes:
    connection.send_command(*command)
    reply: bytes = connection.read_response()
    return reply


def _field(info: bytes, name: str) -> str:
    for line in info.decode().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise RedisAway(f"Redis tells no {name}")
