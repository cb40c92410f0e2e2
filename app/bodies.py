"""The body of a request read whole, within a bound and a deadline, before anything is done for it.

Werkzeug would cut a chunked body at the limit without a word, pass on one that ended early as if it were whole, and
wait for a slow one for ever, while its reader holds a connection of the database.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import gevent

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PIECE = 1 << 18
FORM = "application/x-www-form-urlencoded"
FAULT = "portico.body"  # in the environment of a request: the status with which its body is refused
# A client that takes nothing of its answer for this long is gone; longer than an idle connection may last.
SLOW_READER_S = 90.0
MOST_FIELDS = 2_000  # of a form
MOST_HELD = 128 << 20  # bytes of all bodies that are still being read by one process


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyFault(Exception):
    """Why a body was not taken; `status` is 400 when it was cut short, 408 when it came too slowly, 413 when it is too
    large."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def read_whole(
    body: Readable, declared: int | None, limit: int, timeout_s: float, note: Callable[[int], None] = lambda size: None
) -> bytes:
    """The whole body of `declared` bytes, None where that was not told. Raises `BodyFault`. `note` is told the size of each
    piece that came, and may refuse it."""
    if declared is not None and declared > limit:
        raise BodyFault(413)
    pieces: list[bytes] = []
    size = 0
    late = gevent.Timeout(timeout_s)
    late.start()
    try:
        while size <= limit and (declared is None or size < declared):
            piece = body.read(_PIECE if declared is None else declared - size)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            note(len(piece))
    except gevent.Timeout as timeout:
        if timeout is not late:
            raise
        raise BodyFault(408) from None
    except BodyFault:
        raise
    except Exception:  # the server's parser has exceptions of its own for bodies that end early
        raise BodyFault(400) from None
    finally:
        late.close()
    if size > limit:
        raise BodyFault(413)
    if declared is not None and size < declared:
        raise BodyFault(400)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Parts(NamedTuple):
    """How much a JSON text holds: objects and lists, members of objects, and values of all kinds."""

    nested: int
    members: int
    values: int


def count_parts(text: bytes, most_quotes: int) -> Parts | None:
    """What a decoder would make of a JSON text at the most, counted in C and in linear time; None where the text has more
    quotes than `most_quotes`."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # the quotes that are left begin and end strings
    if text.count(b'"') > most_quotes:
        return None
    outside = b"".join(text.split(b'"')[::2])
    nested = outside.count(b"[") + outside.count(b"{")
    return Parts(nested, outside.count(b":"), nested + outside.count(b","))


class WholeBodies:
    """A WSGI application that sees a request only when its body is there, or why it is not: then under `FAULT`."""

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
        told = environ.get("CONTENT_LENGTH") or ("" if chunked else "0")
        if chunked or told != "0":
            self._replace_body(environ, None if chunked else int(told))
        return self._application(environ, start_response)

    def _replace_body(self, environ: WSGIEnvironment, declared: int | None) -> None:
        came = 0

        def note(size: int) -> None:
            nonlocal came
            came += size
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
            self._held -= came
        if environ.get("CONTENT_TYPE", "").startswith(FORM) and body.count(b"&") >= MOST_FIELDS:
            environ[FAULT], body = 413, b""
        environ["wsgi.input"] = BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)


def _read_no_more(sock: Any) -> None:
    """What is left of the body would be taken for the next request: with nothing to read the server hangs up."""
    if sock is not None:
        with suppress(OSError):  # the client has gone
            sock.shutdown(socket.SHUT_RD)
