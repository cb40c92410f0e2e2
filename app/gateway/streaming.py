"""The relay of a stream: pieces go on as they come, and however it ends it is settled before its last bytes.

Also the watch on the client's socket, which notices at once when nobody is listening any more.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from gevent.hub import get_hub
from gevent.monkey import get_original

from app.gateway.attempts import Delivery
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.providers.base import UpstreamError
from app.providers.sse import KEEP_ALIVE
from app.runtime.work import Work

# A client that takes nothing for this long is gone: gunicorn itself would wait for ever.
SLOW_READER_S = 60.0
LOOK_S = 0.5  # between two looks at a client that has sent more than its request

_END = getattr(select, "POLLRDHUP", 0)  # what not every system tells; a broken connection is always told


class BrokenOff(Exception):
    """An answer is not whole and has no way to say so: its connection must end without the answer's end."""


def relay(call: Call, delivery: Delivery, settle: Callable[[], None]) -> Iterator[bytes]:
    """The stream's bytes. `settle` is called exactly once, before the last of them, which tell clients the end: who hangs up
    then has had it all. Raises `BrokenOff`."""
    events = delivery.pieces
    last: bytes | None = call.dialect.end
    piece = sent = delivery.first
    try:
        while True:
            if piece and not call.gone:
                sent = piece
                yield piece
            call.wait()
            try:
                piece = next(events)
            except StopIteration as end:
                last = (end.value or b"") + call.dialect.end
                break
            finally:
                call.resume()
            if call.first_token_at is None:
                call.came()
        delivery.ended(None)
    except GeneratorExit:
        # Writing to the client failed, or the server closed the answer.
        call.gone = True
        if call.drains:
            _drain(call, events)
    except Interrupted as interrupted:
        tell_interrupted(call, interrupted)
        last = _cut(call, delivery, sent, call.error_message or "The stream was cut.")
    except UpstreamError as error:
        delivery.ended(error)
        call.failed("error", 200, "upstream_cut", error.message)
        last = _cut(call, delivery, sent, error.message, error)
    except BaseException:
        call.failed("error", 200, "internal_error", "The gateway failed.")
        raise
    finally:
        delivery.exchange.close()
        delivery.exchange.conclude()
        call.ended_at = time.monotonic()
        if call.gone and call.outcome == "ok":
            call.failed("cancelled", 200, "client_gone", "The client hung up.")
        settle()
    if call.gone:
        return
    if last is None:
        raise BrokenOff
    if last:
        yield last


def bridge(call: Call, work: Work[Delivery], settle: Callable[[], None]) -> Iterator[bytes]:
    """The stream of a call whose upstream has said nothing for long: signs of life until it does, then `relay`. What fails
    meanwhile is told in the stream, whose status has been sent. Raises `BrokenOff`."""
    is_closed = False
    try:
        yield KEEP_ALIVE
        while not work.wait(call.request.keep_alive_s):
            if not call.gone:
                yield KEEP_ALIVE
    except GeneratorExit:
        # Writing to the client failed, or the server closed the answer.
        is_closed = True
        call.interrupt("gone")
        while not work.wait(call.request.keep_alive_s):
            continue
    try:
        delivery = work.result()
    except ApiError as error:
        call.failed("error", 200, error.code or error.type, error.message)
        last = call.dialect.cut(error.message, error)
    except Interrupted as interrupted:
        tell_interrupted(call, interrupted)
        last = call.dialect.cut(call.error_message or "")
    except BaseException:
        call.failed("error", 200, "internal_error", "The gateway failed.")
        settle()
        raise
    else:
        call.request.forget_question()
        pieces = relay(call, delivery, settle)
        if not is_closed:
            yield from pieces
        else:
            for _ in pieces:
                continue
        return
    settle()
    if not (is_closed or call.gone):
        yield last


def _cut(call: Call, delivery: Delivery, sent: bytes, message: str, error: UpstreamError | None = None) -> bytes | None:
    """What ends a stream that is cut behind the piece `sent`; None for an answer without events, such as a sound."""
    if delivery.exchange.media_type is not None:
        return None
    return call.dialect.cut(message, error, (delivery.first, sent))


def _drain(call: Call, events: Iterator[bytes]) -> None:
    """Nobody listens, but the provider is to finish: read on for the usage it will tell."""
    call.wait()
    try:
        for _ in events:
            continue
    except Interrupted as interrupted:
        tell_interrupted(call, interrupted)
    except UpstreamError as error:
        call.failed("error", 200, "upstream_cut", error.message)
    finally:
        call.resume()


def tell_interrupted(call: Call, interrupted: Interrupted) -> None:
    """Why a call was stopped, in words for its client and its ledger row."""
    if interrupted.reason == "gone":
        call.failed("cancelled", 499, "client_gone", "The client hung up.")
    elif interrupted.reason == "fenced":
        call.failed("error", 503, "hold_lost", "The gateway lost this request's reservation and stopped it.")
    else:
        call.failed("error", 503, "stopping", "The gateway is restarting and had to stop this request.")


class Watch:
    """Watches a client's socket while its call goes on; `on_gone` is called once, from the event loop.

    A client that ends its side of the connection is gone, also when it would still listen.
    """

    def __init__(self, sock: Any, on_gone: Callable[[], None]) -> None:
        raw = getattr(sock, "_sock", sock)
        self._raw = raw
        self._on_gone = on_gone
        self._watcher: Any = None
        # Of a TLS connection only ciphertext could be seen; its end shows at the next write.
        if raw is not None and not hasattr(sock, "getpeercert") and raw.fileno() >= 0:
            self._watcher = get_hub().loop.io(raw.fileno(), 1)
            self._watcher.start(self._readable)

    def _readable(self) -> None:
        try:
            data = self._raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.stop()
        if not data:
            self._on_gone()
            return
        # The next request waits there, and would hide the end that comes after it.
        self._watcher = get_hub().loop.timer(LOOK_S, LOOK_S)
        self._watcher.start(self._look)

    def _look(self) -> None:
        if self._raw.fileno() < 0 or has_ended(self._raw.fileno()):
            self.stop()
            self._on_gone()

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


class Watched:
    """A stream's pieces; when they are closed the watch ends and the call is settled."""

    def __init__(self, pieces: Iterator[bytes], watch: Watch) -> None:
        self._pieces = pieces
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self._watch.stop()
        self._pieces.close()  # type: ignore[attr-defined]


def has_ended(file: int) -> bool:
    """Whether a socket's other side has ended or broken the connection, whatever waits to be read before that."""
    poll = get_original("select", "poll")()
    poll.register(file, _END)
    return bool(poll.poll(0))
