"""HTTP to upstreams: keep-alive pools on gevent sockets, parsed in C by geventhttpclient's parser.

It exists beside that package's client because the gateway must pass pieces on as they come, stop an exchange
from outside, judge every address it connects to, and repeat a request on a fresh connection only while nothing
of an answer was seen.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent.socket
import gevent.ssl
from geventhttpclient.response import HTTPResponse

from app.providers.addresses import AddressPolicy, AddressRefused
from app.providers.base import UpstreamError
from app.sockets import READ_BYTES, Patience, send

MAX_ANSWER_BYTES = 64 << 20
MAX_IDLE = 256


class Origin(NamedTuple):
    """Where a URL leads, and the path its requests begin with."""

    secure: bool
    host: str
    port: int
    path: str


def origin_of(url: str) -> Origin:
    """Raises `ValueError` with a sentence for a URL that is not plain http(s)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as https://host/v1")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("expected an address without user, query or fragment")
    secure = parts.scheme == "https"
    return Origin(secure, parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/"))


class Stale(Exception):
    """A kept connection that turned out closed before anything of an answer came."""


class Answer:
    """An upstream's answer: status and headers are there, the body comes as it is read."""

    def __init__(self, pool: Pool, sock: Any) -> None:
        self._pool = pool
        self._sock: Any = sock
        self._parser = _Parser()
        self._body = 0

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
        while not self._parser.headers_complete or self._parser.get_code() < 200:
            data = self._receive(stale=kept and not started)
            if not data:
                if kept and not started:
                    raise Stale
                raise UpstreamError("The provider closed the connection without an answer.")
            started = True
            self._feed(data)

    def read(self) -> bytes:
        """What has come of the body, waiting for some; b"" at its end. Raises `UpstreamError` when it is cut."""
        parser = self._parser
        body = parser.body
        while not body:
            if parser.message_complete:
                self.close()
                return b""
            data = self._receive()
            self._feed(data)
            if not data and not parser.message_complete:
                raise UpstreamError("The provider's answer was cut off.")
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return piece

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.read():
            pieces.append(piece)
            self._body += len(piece)
            if self._body > MAX_ANSWER_BYTES:
                raise UpstreamError("The provider's answer is too large.")
        return b"".join(pieces)

    def close(self) -> None:
        """Keep the connection for the next request if this answer was read to its end, else hang up."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._parser.message_complete and self._parser.should_keep_alive():
            self._pool.keep(sock)
        else:
            sock.close()

    def _receive(self, *, stale: bool = False) -> bytes:
        if self._sock is None:
            raise UpstreamError("The provider's answer was cut off.")
        try:
            data = self._pool.patience.receive(self._sock)
        except TimeoutError:
            raise UpstreamError("The provider did not answer in time.", timed_out=True) from None
        except OSError:
            if stale:
                raise Stale from None
            raise UpstreamError("The connection to the provider broke.") from None
        return data

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except Exception:  # the parser's own exceptions share no base
            if not data:
                raise UpstreamError("The provider's answer was cut off.") from None
            raise UpstreamError("The provider's answer is not HTTP.") from None


class _Parser(HTTPResponse):
    """geventhttpclient's parser, handing body pieces on without joining them."""

    def __init__(self) -> None:
        super().__init__(method="POST")
        self.body: list[bytes] = []

    def _on_body(self, buf: bytearray) -> None:
        self.body.append(bytes(buf))


class Pool:
    """The connections to one origin. Timeouts count for connecting, for the head, and for each silence."""

    def __init__(self, url: str, *, timeout_s: float, policy: AddressPolicy) -> None:
        self.origin = origin_of(url)
        self._timeout_s = timeout_s
        self.patience = Patience(timeout_s)
        self._policy = policy
        self._idle: list[Any] = []
        self._closed = False
        default = 443 if self.origin.secure else 80
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        self._host = host if self.origin.port == default else f"{host}:{self.origin.port}"

    def request(self, method: str, path: str, headers: dict[str, str], body: Sequence[bytes] = ()) -> Answer:
        """Send a request, its body in pieces, and wait for the head of its answer. Raises `UpstreamError`."""
        lines = [f"{method} {self.origin.path}{path} HTTP/1.1", f"Host: {self._host}", "User-Agent: Portico",
                 "Accept-Encoding: identity"]  # fmt: skip
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {sum(map(len, body))}")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        while True:
            sock = self._kept()
            kept = sock is not None
            if sock is None:
                sock = self._connect()
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

    def _send(self, sock: Any, head: bytes, body: Sequence[bytes], *, kept: bool) -> None:
        small = [head]  # small pieces leave together, large ones as they are
        try:
            for piece in body:
                if len(piece) < READ_BYTES:
                    small.append(piece)
                    continue
                send(sock, b"".join(small))
                send(sock, piece)
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
            try:
                # Anything to read on an idle connection, even its end, means it can't be used.
                sock._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return sock
            except OSError:
                pass
            sock.close()
        return None

    def _connect(self) -> Any:
        origin = self.origin
        try:
            addresses = self._policy.resolve(origin.host, origin.port)
        except AddressRefused as error:
            raise UpstreamError(f"The provider can't be used: {error}.", unreachable=True) from None
        except OSError:
            raise UpstreamError("The provider's name can't be resolved.", unreachable=True) from None
        failure: UpstreamError | None = None
        for family, address in addresses:
            sock = gevent.socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._timeout_s)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if origin.secure:
                    sock = _tls().wrap_socket(sock, server_hostname=origin.host)
                return sock
            except TimeoutError:
                failure = UpstreamError("The provider could not be reached in time.", timed_out=True)
            except ssl.SSLCertVerificationError:
                failure = UpstreamError("The provider's TLS certificate is not valid for its name.", unreachable=True)
            except OSError:
                failure = UpstreamError("The provider can't be reached.", unreachable=True)
            sock.close()
        assert failure is not None
        raise failure

    def keep(self, sock: Any) -> None:
        if self._closed or len(self._idle) >= MAX_IDLE:
            sock.close()
        else:
            self._idle.append(sock)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


@cache
def _tls() -> Any:
    return gevent.ssl.create_default_context()


_EVENT_END = re.compile(rb"\r?\n\r?\n")


def split_events(answer: Answer) -> Iterator[bytes]:
    """The body as server-sent events, each without the empty line that ends it."""
    rest = b""
    while piece := answer.read():
        if not rest and 0 < piece.find(b"\n\n") == len(piece) - 2 and b"\r" not in piece:
            yield piece[:-2]  # the usual: one whole event
            continue
        rest += piece
        start = 0
        for end in _EVENT_END.finditer(rest):
            if end.start() > start:
                yield rest[start : end.start()]
            start = end.end()
        rest = rest[start:]
        if len(rest) > MAX_ANSWER_BYTES:
            raise UpstreamError("The provider's answer is too large.")
    if rest.strip():
        yield rest


_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)]+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[\w.-]+\.(?:local|internal|svc|lan)\b(?::\d+)?"
    r"|\blocalhost(?::\d+)?\b",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\b(?:sk|gsk|hf|xai|key|pk|rk)[-_][\w*•.-]{4,}|\bAIza[\w-]{10,}|\bBearer\s+\S+"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # a JSON web token
    r"|\b(?:password|passwd|pwd|secret|(?:api[_-]?key|[a-z]+[_-]token))[\"']?\s*[=:]\s*[\"']?[^\s\"'&,;}]+",
    re.IGNORECASE,
)


def safe_to_show(text: str, *secrets: str | None) -> str:
    """An upstream's own words without addresses and secrets, at most 500 characters."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[removed]")
    text = _SECRET.sub("[removed]", _ADDRESS.sub("[address]", text))
    return "".join(c if c.isprintable() else " " for c in text)[:500].strip()
