"""A fast path around Flask for the busiest routes: gunicorn's own parser in front, the same endpoints behind.

Building a WSGI environment, Flask's contexts and gunicorn's answer cost more than all the gateway itself does for a
call. A plain `POST` to one of these routes goes straight from gunicorn's request to the endpoint, and its answer
leaves in one write. Whatever is unusual (another HTTP version, a chunked body) takes the way through Flask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import structlog

from app import clock
from app.blueprints.v1.handle import handle
from app.blueprints.v1.http import Answer, Request, passed_headers
from app.blueprints.v1.serve import serve
from app.gateway.endpoints import Endpoint
from app.gateway.labels import HEADERS, labels_in, of_program, session_in
from app.gateway.runtime import Runtime
from app.gateway.streaming import BrokenOff
from app.runtime.bodies import Readable
from app.runtime.sockets import send

UNUSUAL = frozenset(("EXPECT", "UPGRADE", "TRANSFER-ENCODING", "ORIGIN"))
_STATUS = {int(status): b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}

log = structlog.get_logger("gateway.fast_path")


def _body(request: Any, length: int) -> bytes | Readable:
    """The whole body where it has come with the head, as small ones do; else what reads it, without gunicorn's buffer for
    lines, through which a large body would be copied again."""
    came: bytes = request.unreader.take_buffered()
    if len(came) == length:
        request.body.reader.length = 0
        return came
    request.unreader.unread(came)
    reader: Readable = request.body.reader
    return reader


class FastPath:
    """Serves `endpoints`, by their exact paths, from gunicorn's parsed requests."""

    def __init__(self, gateway: Callable[[], Runtime], endpoints: Mapping[str, Endpoint]) -> None:
        self._gateway = gateway
        self._endpoints = endpoints
        self._date = (0, b"")

    def takes(self, incoming: Any) -> bool:
        """Whether a request, as gunicorn parsed it, can take this path."""
        return (
            incoming.method == "POST"
            and incoming.version == (1, 1)
            and incoming.uri.partition("?")[0] in self._endpoints
            and UNUSUAL.isdisjoint([name for name, _ in incoming.headers])
        )

    def serve(self, incoming: Any, sock: Any, *, keep: bool) -> bool:
        """Answer a request on the client's socket; whether the connection may be used again."""
        path = incoming.uri.partition("?")[0]  # what is behind it asks for nothing here
        endpoint = self._endpoints[path]
        passing, passed = passed_headers(endpoint.dialect), {}
        authorization, api_key, encoding, kind, agent, length, host = "", "", "", "", "", 0, ""
        told: dict[str, str] = {}  # by the client, of itself
        for name, value in incoming.headers:
            if name == "AUTHORIZATION":
                authorization = f"{authorization},{value}" if authorization else value
            elif name == "CONTENT-LENGTH":
                length = int(value)  # gunicorn has checked it
            elif name == "CONTENT-TYPE":
                kind = value
            elif name == "HOST":
                host = value
            elif name == "USER-AGENT":
                agent = value
            elif name == "X-API-KEY":
                api_key = f"{api_key},{value}" if api_key else value
            elif name == "CONTENT-ENCODING":
                encoding = f"{encoding},{value}" if encoding else value
            elif name in passing:
                passed[passing[name]] = value
            elif name in HEADERS:
                told[name] = f"{told[name]},{value}" if name in told else value
        request = Request(
            self._gateway(), path, endpoint=endpoint, authorization=authorization, api_key=api_key,
            content_encoding=encoding, content_type=kind, length=length, socket=sock, body=_body(incoming, length),
            origin=f"{incoming.scheme}://{host}", session=session_in(told.get) if told else "", user_agent=agent,
            labels=labels_in(told.get, agent) if told else of_program(agent), headers=passed,
        )  # fmt: skip
        answer = handle(request, serve)
        keep = keep and answer.headers.pop("Connection", "") != "close" and not incoming.should_close()
        try:
            if isinstance(answer.body, bytes):
                send(sock, self._head(answer, keep, b"Content-Length: %d\r\n" % len(answer.body)) + answer.body)
            else:
                self._stream(sock, self._head(answer, keep, b"Transfer-Encoding: chunked\r\n"), answer.body)
        except (OSError, BrokenOff):  # the client has gone, or took nothing for too long
            return False
        except Exception:  # too late for another status: the missing end of the stream tells that it is not whole
            log.exception("an answer broke off", request_id=request.id)
            return False
        return keep

    def _stream(self, sock: Any, head: bytes, pieces: Iterator[bytes]) -> None:
        """The pieces as they come, each in one write; however it goes they are closed, which settles the call."""
        try:
            for piece in pieces:
                send(sock, b"%s%x\r\n%s\r\n" % (head, len(piece), piece))
                head = b""
            send(sock, head + b"0\r\n\r\n")
        finally:
            pieces.close()  # type: ignore[attr-defined]

    def _head(self, answer: Answer, keep: bool, framing: bytes) -> bytes:
        now = clock.now_s()
        if self._date[0] != now:
            self._date = now, b"Date: %s\r\nConnection: " % formatdate(now, usegmt=True).encode()
        lines = "".join([f"{name}: {value}\r\n" for name, value in answer.headers.items()]).encode("latin-1")
        keeping = b"keep-alive\r\n" if keep else b"close\r\n"
        status = _STATUS.get(answer.status) or b"HTTP/1.1 %d \r\n" % answer.status
        return b"%s%s%s%s%s\r\n" % (status, self._date[1], keeping, lines, framing)
