"""HTTP to upstreams: keep-alive pools on gevent sockets, parsed in C by geventhttpclient's parser.

It exists beside that package's client because the gateway must pass pieces on as they come, stop an exchange
from outside, connect by `Dial` alone, and repeat a request on a fresh connection only while nothing of an answer was
seen.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Sequence
from typing import Any

import gevent
from geventhttpclient.response import HTTPProtocolViolationError, HTTPResponse

from app.providers.dial import Dial
from app.providers.errors import UpstreamError
from app.providers.sse import BOM, stands_alone
from app.runtime.forms import Upload
from app.runtime.sockets import READ_BYTES, Patience, is_silent, send

MAX_ANSWER_BYTES = 64 << 20
MAX_IDLE = 256
MOST_HEADS = 16
END_S = 1.0  # how long the end of an answer is waited for whose last event has come, to keep its connection
MAX_HEAD_BYTES = 256 << 10

_UNPACK_BYTES = 1 << 20  # at a time


class Stale(Exception):
    """A kept connection that turned out closed before anything of an answer came."""


class Answer:
    """An upstream's answer: status and headers are there, the body comes as it is read, unpacked if it was packed."""

    def __init__(self, pool: Pool, sock: Any) -> None:
        self._pool = pool
        self._sock: Any = sock
        now = time.monotonic()
        self._begins_by = now + min(pool.deadlines.first_byte_s, pool.deadlines.total_s)
        self._ends_by = now + pool.deadlines.total_s
        self._has_begun = False  # its body
        self._silent_since: float | None = None
        self._parser = _Parser()
        self._unpacker: _Unpacker | None = None
        self._broken: UpstreamError | None = None  # what is said once everything that came before it was read
        self._ending = False

    @property
    def status(self) -> int:
        status: int = self._parser.get_code()
        return status

    def header(self, name: str) -> str | None:
        value = self._parser.get(name)
        return value[0] if isinstance(value, list) else value

    def read_head(self, *, kept: bool) -> None:
        """Wait for the head. Raises `Stale` on a kept connection that answered nothing at all."""
        started = False
        size = 0
        while not self._parser.headers_complete or self._parser.get_code() < 200:
            if self._broken is not None:
                raise self._broken
            data = self._receive(stale=kept and not started)
            if not data:
                if kept and not started:
                    raise Stale
                raise UpstreamError("The provider closed the connection without an answer.")
            started = True
            self._feed(data)
            size += len(data)
            if size > MAX_HEAD_BYTES and (not self._parser.headers_complete or self._parser.get_code() < 200):
                raise UpstreamError("The head of the provider's answer is too large.")
        encoding = (self.header("content-encoding") or "identity").strip().lower()
        if encoding != "identity":
            self._unpacker = _Unpacker(encoding)

    def read(self, until: float | None = None) -> bytes:
        """What has come of the body, waiting for some; b"" at its end. `until`, on the clock of `time.monotonic`, is the
        last moment to wait for. Raises `UpstreamError` when it is cut."""
        unpacker = self._unpacker
        if unpacker is None:
            return self._read(until)
        while not (unpacked := unpacker.unpacked()):
            piece = self._read(until)
            if not piece:
                if not unpacker.is_whole:
                    raise UpstreamError("The provider's answer was cut off.")
                return b""
            unpacker.feed(piece)
        gevent.sleep(0)  # a little may unpack to much: others have their turn in between
        return unpacked

    def read_within(self, seconds: float) -> bytes | None:
        """The same, but None after so many seconds in which nothing came, and again after as many. The deadlines hold."""
        until = time.monotonic() + seconds
        since = self._silent_since
        if since is not None and self._has_begun:
            until = min(until, since + self._pool.deadlines.idle_s)
        try:
            piece = self.read(until)
        except UpstreamError as error:
            if not error.timed_out:
                raise
            if since is None:
                self._silent_since = since = until - seconds
            ends = since + self._pool.deadlines.idle_s if self._has_begun else self._begins_by
            if time.monotonic() < min(ends, self._ends_by):
                return None
            raise
        if since is not None:
            self._silent_since = None
        return piece

    def read_stream(self, keep_alive_s: float, until: float | None) -> bytes | None:
        """`read_within` while `until` is None. From when on a stream may end it is waited for until then, and however its
        connection ends is the end of it."""
        if until is None:
            return self.read_within(keep_alive_s)
        try:
            return self.read(until)
        except UpstreamError:
            return b""

    def _read(self, until: float | None) -> bytes:
        parser = self._parser
        body = parser.body
        while not body:
            if parser.message_complete:
                self.close()
                return b""
            if self._broken is not None:
                raise self._broken
            data = self._receive(until)
            self._feed(data)
            if not data and not parser.message_complete:
                raise UpstreamError("The provider's answer was cut off.")
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return piece

    def read_all(self, limit: int = MAX_ANSWER_BYTES, until: float | None = None) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := self.read(until):
            size += _within(limit, size, piece)
            pieces.append(piece)
        return b"".join(pieces)

    def read_object(self, grace_s: float) -> bytes:
        """The body of an answer in JSON, without a byte order mark. Once its object is closed, a connection that breaks,
        or that stays open for `grace_s`, takes nothing away from it."""
        pieces: list[bytes] = []
        size = 0
        is_patient = False
        while True:
            may_end = bool(pieces) and pieces[-1].rstrip().endswith(b"}")
            is_short = may_end and not is_patient
            try:
                piece = self.read(time.monotonic() + grace_s if is_short else None)
            except UpstreamError as error:
                body = b"".join(pieces).removeprefix(BOM)
                if may_end and body.lstrip().startswith(b"{") and stands_alone(body):
                    return body
                if not is_short or not error.timed_out:
                    raise
                is_patient = True  # that was not its end
                continue
            if not piece:
                return b"".join(pieces).removeprefix(BOM)
            is_patient = False
            size += _within(MAX_ANSWER_BYTES, size, piece)
            pieces.append(piece)
            if self._unpacker is None and self._parser.message_complete and not self._parser.body:
                self.close()  # the usual: there is nothing more to wait for
                return b"".join(pieces).removeprefix(BOM)

    def finish(self) -> None:
        """Everything that matters was read. The connection is kept if the answer ends soon, and nobody waits for it."""
        if self._sock is None or self._parser.message_complete or self._broken is not None:
            self.close()
        else:
            self._ending = True
            gevent.spawn(self._see_end)

    def _see_end(self) -> None:
        try:
            self.read_all(READ_BYTES, time.monotonic() + END_S)
        except UpstreamError:
            pass  # whatever it is, the answer was whole before
        finally:
            self._ending = False
            self.close()

    def close(self) -> None:
        """Keep the connection for the next request if this answer was read to its end, else hang up."""
        if self._ending:
            return
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._parser.message_complete and self._broken is None and self._parser.should_keep_alive():
            self._pool.keep(sock)
        else:
            sock.close()

    def _receive(self, until: float | None = None, *, stale: bool = False) -> bytes:
        if self._sock is None:
            raise UpstreamError("The provider's answer was cut off.")
        is_first = not self._has_begun
        latest = self._begins_by if is_first else self._ends_by
        if until is not None and until < latest:
            latest, is_first = until, False
        try:
            data = self._pool.patience.receive(self._sock, latest, patiently=is_first)
        except TimeoutError:
            raise UpstreamError(self._why_late(), timed_out=True) from None
        except OSError:
            if stale:
                raise Stale from None
            raise UpstreamError("The connection to the provider broke.") from None
        return data

    def _why_late(self) -> str:
        deadlines = self._pool.deadlines
        if time.monotonic() >= self._ends_by:
            return f"The provider's answer took longer than {deadlines.total_s:g} s."
        if not self._has_begun:
            return f"The provider did not begin to answer within {deadlines.first_byte_s:g} s."
        return f"The provider stopped in the middle of its answer: nothing came for {deadlines.idle_s:g} s."

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except Exception:  # the parser's own exceptions share no base
            cut = "The provider's answer is not HTTP." if data else "The provider's answer was cut off."
            self._broken = UpstreamError(cut)
        if not self._has_begun and self._parser.body:
            self._has_begun = True


def _within(limit: int, size: int, piece: bytes) -> int:
    if size + len(piece) > limit:
        raise UpstreamError("The provider's answer is too large.")
    return len(piece)


class _Parser(HTTPResponse):
    """geventhttpclient's parser, handing body pieces on without joining them."""

    def __init__(self) -> None:
        super().__init__(method="POST")
        self.body: list[bytes] = []

    def _on_message_begin(self) -> None:
        if self.message_complete and self.get_code() >= 200:
            raise HTTPProtocolViolationError("another answer, which nobody asked for")
        super()._on_message_begin()

    def _on_body(self, buf: bytearray) -> None:
        self.body.append(bytes(buf))


class _Unpacker:
    """Takes apart what an upstream packed although it was asked not to. What comes out is bounded."""

    def __init__(self, encoding: str) -> None:
        self._is_known = encoding in ("gzip", "x-gzip", "deflate")
        self._bare = encoding == "deflate"  # some send it without zlib's head
        self._zlib: Any = None
        self._packed = b""
        self._holds_more = False  # of what it has read already
        self._left = MAX_ANSWER_BYTES

    def feed(self, piece: bytes) -> None:
        """Raises `UpstreamError` for what can't be unpacked."""
        if not self._is_known:
            raise UpstreamError("The provider's answer is compressed in a way that can't be read.")
        self._packed += piece

    def unpacked(self) -> bytes:
        """Some of what came; b"" when there is none. Raises `UpstreamError` for what can't be unpacked."""
        while self._packed or self._holds_more:
            if self._zlib is None:
                if len(self._packed) < 2:
                    return b""
                is_bare = self._bare and (self._packed[0] & 15 != 8 or int.from_bytes(self._packed[:2]) % 31)
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS | 32)  # gzip or zlib
            elif self._zlib.eof:
                if not self._packed.startswith(b"\x1f\x8b"):  # one gzip member may follow another
                    self._packed = b""
                    break
                self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                part: bytes = self._zlib.decompress(self._packed, _UNPACK_BYTES)
            except zlib.error:
                raise UpstreamError("The provider's answer can't be unpacked.") from None
            self._packed = self._zlib.unconsumed_tail or self._zlib.unused_data
            self._holds_more = len(part) == _UNPACK_BYTES and not self._zlib.eof
            self._left -= len(part)
            if self._left < 0:
                raise UpstreamError("The provider's answer is too large.")
            if part:
                return part
        return b""

    @property
    def is_whole(self) -> bool:
        return self._zlib is not None and bool(self._zlib.eof)


class Pool:
    """The connections to one origin."""

    def __init__(self, dial: Dial) -> None:
        self.origin = dial.origin
        self.deadlines = dial.deadlines
        self.patience = Patience(dial.deadlines.idle_s)
        self._dial = dial
        self._idle: list[Any] = []
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._closed = False
        default = 443 if self.origin.secure else 80
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        self._host = host if self.origin.port == default else f"{host}:{self.origin.port}"

    def request(self, method: str, path: str, headers: dict[str, str], body: Sequence[bytes | Upload] = ()) -> Answer:
        """Send a request, its body in pieces, and wait for the head of its answer. Raises `UpstreamError`."""
        head = self._head(method, path, headers)
        if body or method == "POST":
            head = b"%sContent-Length: %d\r\n\r\n" % (head[:-2], sum(map(len, body)))
        while True:
            sock = self._kept()
            kept = sock is not None
            if sock is None:
                sock = self._dial.connect()
            answer = Answer(self, sock)
            try:
                self._send(sock, head, body, kept=kept)
                answer.read_head(kept=kept)
                return answer
            except Stale:
                answer.close()
            except BaseException:
                answer.close()
                raise

    def _head(self, method: str, path: str, headers: dict[str, str]) -> bytes:
        """The head of a request, without its length. An adapter asks with the same headers again and again, so the last
        ones are remembered. Raises `UpstreamError`."""
        asked = (method, path, *headers.items())
        head = self._heads.get(asked)
        if head is None:
            own = {"Host": self._host, "User-Agent": "Portico", "Accept-Encoding": "identity"}
            head = head_of(method, self.origin.path + path, own | headers)
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[asked] = head
        return head

    def _send(self, sock: Any, head: bytes, body: Sequence[bytes | Upload], *, kept: bool) -> None:
        small = [head]  # small pieces leave together, large ones as they are
        try:
            for piece in body:
                if not isinstance(piece, Upload) and len(piece) < READ_BYTES:
                    small.append(piece)
                    continue
                send(sock, b"".join(small))
                for part in piece.pieces() if isinstance(piece, Upload) else (piece,):
                    send(sock, part)
                small.clear()
            if small:
                send(sock, b"".join(small))
        except TimeoutError:
            raise UpstreamError("The provider did not take the request in time.", timed_out=True) from None
        except OSError:
            if kept:
                raise Stale from None
            # It may have answered before it hung up, such as 413: the reader will see.

    def _kept(self) -> Any:
        while self._idle:
            sock = self._idle.pop()
            if is_silent(sock):  # anything to read, even its end, means it can't be used
                return sock
            sock.close()
        return None

    def keep(self, sock: Any) -> None:
        if self._closed or len(self._idle) >= MAX_IDLE:
            sock.close()
        else:
            self._idle.append(sock)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


_HEAD = re.compile(r"[A-Z]+ /[!-~]* HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [ -~]*\r\n)*\r\n")


def head_of(method: str, target: str, headers: dict[str, str]) -> bytes:
    """The head of a request as it is sent. Raises `UpstreamError` for a target or a header that would be more than one
    or that has other signs than printable ASCII: nothing in a setting, an environment or a name can add to a request."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or not _HEAD.fullmatch(head):
        raise UpstreamError("The provider can't be asked: its address or its key has characters that can't be sent.")
    return head.encode("ascii")
