"""The hot side's Redis: one connection a process, shared by all its greenlets, pipelined by itself.

Commands given within one turn of the event loop leave in one write, which costs a tenth of a connection and a
round trip each. Everything sent here must be safe to send twice: a command lost with its connection is repeated
once on a new one. Handshake, TLS and addresses are redis-py's; parsing and packing are hiredis's.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from typing import Any

import hiredis
import redis
from gevent import getcurrent
from gevent.hub import get_hub
from gevent.lock import RLock
from gevent.socket import socket as GeventSocket
from redis.connection import ConnectionPool

from app.runtime.sockets import is_silent
from app.store import is_not_serving, pool

RedisReply = Any

AGAIN_S = 0.5  # how long after a failed connection none is tried


class RedisAway(Exception):
    """Redis can't be reached, did not answer in time, or serves nobody at the moment."""


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
    """One live connection: what is to be sent, and who waits for what in order.

    It lives in the event loop alone: no greenlet stands between a reply and the one that waits for it.
    """

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
        self._socket.settimeout(0.0)
        self._is_tls = hasattr(self._socket, "getpeercert")
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._out: list[bytes] = []
        self._rest = b""  # what the kernel has not taken yet
        self._pending: deque[_Waiter] = deque()
        self._heard_at = 0.0
        self.broken = False
        self._loop = get_hub().loop
        self._readable = self._loop.io(self._socket.fileno(), 1)
        self._writable = self._loop.io(self._socket.fileno(), 2)
        self._clock = self._loop.timer(timeout_s / 4, timeout_s / 4)
        self._readable.start(self._read)

    def send(self, waiter: _Waiter) -> None:
        self._pending.append(waiter)
        if not self._out:  # what this turn of the loop still gives leaves with it
            self._loop.run_callback(self._write)
        self._out.append(waiter.packed)
        if not self._clock.active:
            self._clock.start(self._look)

    def _write(self) -> None:
        if self.broken:
            return
        data = b"".join([self._rest, *self._out])
        self._out.clear()
        try:
            sent = self._socket.send(data)
        except _LATER:
            sent = 0
        except OSError as error:
            self.close(error)
            return
        self._rest = data[sent:]
        if self._rest and not self._writable.active:
            self._writable.start(self._write)
        elif not self._rest and self._writable.active:
            self._writable.stop()

    def _read(self) -> None:
        while not self.broken:
            try:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionResetError("closed by Redis")
                self._heard_at = time.monotonic()
                self._reader.feed(data)
                self._hand_out()
            except _LATER:
                return
            except (OSError, hiredis.ProtocolError) as error:
                self.close(error)
            if not self._is_tls:  # of which more may have come than the kernel knows
                return

    def _hand_out(self) -> None:
        while not self.broken and (reply := self._reader.gets()) is not _NOTHING:
            waiter = self._pending.popleft()
            waiter.reply, waiter.done = reply, True
            waiter.resume()

    def _look(self) -> None:
        """One timer for all, while anybody waits: the oldest unanswered command tells whether Redis still answers."""
        if not self._pending:
            self._clock.stop()
        elif self._is_silent(max(self._pending[0].sent_at, self._heard_at)):
            self.close(TimeoutError("no answer in time"))

    def _is_silent(self, since: float) -> bool:
        """Whether Redis has said nothing for too long. An answer that this busy process has not read yet is one."""
        if time.monotonic() - since <= self._timeout_s:
            return False
        return self._is_tls or is_silent(self._socket)

    def close(self, reason: Exception) -> None:
        if self.broken:
            return
        self.broken = True
        for watcher in (self._readable, self._writable, self._clock):
            watcher.close()
        self._socket.close()
        self._connection.disconnect()
        while self._pending:
            waiter = self._pending.popleft()
            waiter.reply, waiter.done = RedisAway(str(reason)), True
            self._loop.run_callback(waiter.resume)


_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_NOTHING = object()


class RedisWire:
    """`call` is all there is; it may be used from any greenlet of the process."""

    def __init__(self, url: str, timeout_s: float = 2.0) -> None:
        self._pool = pool(
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

        Raises `RedisAway` when there is no answer within the timeout, after one repeat on a new connection, and when
        the answer is that it serves nobody or takes no writes: a full disk, no memory left, a replica.
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
            if isinstance(waiter.reply, hiredis.ReplyError) and is_not_serving(waiter.reply):
                if str(waiter.reply).startswith("READONLY"):  # no longer the primary: the next call looks for it
                    self.close()
                raise RedisAway(str(waiter.reply))
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
