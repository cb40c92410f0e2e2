"""Reads the whole body of a request, within a bound and a deadline, before the request is handled.

Werkzeug would silently cut a chunked body at the limit, pass on one that ended early as if it were whole, and wait
forever for a slow one, while the request holds a database connection.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

import gevent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PIECE = 1 << 18
_NOTED = 1 << 16  # bytes that are told at a time: the server's reader holds as much before it gives any
FORM = "application/x-www-form-urlencoded"
FAULT = "portico.body"  # in a request's environment: the HTTP status of the refusal of its body
# A client that reads nothing of its answer for this long is gone. It is longer than an idle connection may last.
SLOW_READER_S = 90.0
MOST_FIELDS = 2_000  # of a form
MOST_HELD = 128 << 20  # bytes of all bodies that are still being read by one process


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyFault(Exception):
    """A body was refused: `status` is 400 if it was cut short, 408 if it came too slowly, 413 if it is too large, 503 if too
    many bodies are being read."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def read_whole(
    body: Readable, declared: int | None, limit: int, timeout_s: float, note: Callable[[int], None] | None = None
) -> bytes:
    """Return the whole body; see `pieces_of`. `note` is called with the size of each piece and may refuse it by raising."""
    step = _NOTED if note is not None else _PIECE if declared is None else declared
    pieces = []
    for piece in pieces_of(body, declared, limit, timeout_s, step):
        pieces.append(piece)
        if note is not None:
            note(len(piece))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def pieces_of(
    body: Readable, declared: int | None, limit: int, timeout_s: float, step: int = _PIECE
) -> Iterator[bytes]:
    """The pieces, of `step` bytes at most, of a body of `declared` bytes, or of any length up to `limit` if `declared` is
    None. Raises `BodyFault`; what comes before that is not to be trusted."""
    if declared is not None and declared > limit:
        raise BodyFault(413)
    most = limit + 1 if declared is None else declared
    size = 0
    ends = time.monotonic() + timeout_s
    while size < most:
        piece = _piece(body, min(step, most - size), ends - time.monotonic())
        if not piece:
            break
        size += len(piece)
        if size > limit:
            raise BodyFault(413)
        yield piece
    if declared is not None and size < declared:
        raise BodyFault(400)


def _piece(body: Readable, size: int, wait_s: float) -> bytes:
    late = gevent.Timeout(max(wait_s, 0))
    late.start()
    try:
        return body.read(size)
    except gevent.Timeout as timeout:
        if timeout is not late:
            raise
        raise BodyFault(408) from None
    except Exception:  # the server's parser has exceptions of its own for bodies that end early
        raise BodyFault(400) from None
    finally:
        late.close()


class WholeBodies:
    """WSGI middleware that calls the application once the body is complete, or with the status of its refusal in `FAULT`."""

    def __init__(self, application: WSGIApplication, limit: int, timeout_s: float) -> None:
        self._application = application
        self._limit = limit
        self._timeout_s = timeout_s
        self._held = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        sock = environ.get("gunicorn.socket")
        if sock is not None:
            sock.settimeout(SLOW_READER_S)
        chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        length = environ.get("CONTENT_LENGTH") or ("" if chunked else "0")
        if chunked or length != "0":
            self._replace_body(environ, None if chunked else int(length))
        return self._application(environ, start_response)

    def _replace_body(self, environ: WSGIEnvironment, declared: int | None) -> None:
        received = 0

        def note(size: int) -> None:
            nonlocal received
            received += size
            self._held += size
            if self._held > MOST_HELD:
                raise BodyFault(503)

        body = b""
        try:
            body = read_whole(environ["wsgi.input"], declared, self._limit, self._timeout_s, note)
        except BodyFault as fault:
            environ[FAULT] = fault.status
            _read_no_more(environ.get("gunicorn.socket"))
        finally:
            self._held -= received
        if environ.get("CONTENT_TYPE", "").startswith(FORM) and body.count(b"&") >= MOST_FIELDS:
            environ[FAULT], body = 413, b""
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)


def _read_no_more(sock: Any) -> None:
    """Shut down reading, so that the server hangs up instead of taking the rest of the body for the next request."""
    if sock is not None:
        with suppress(OSError):  # the client has gone
            sock.shutdown(socket.SHUT_RD)
