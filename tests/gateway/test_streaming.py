"""The watch on a client's socket: its end is noticed, whatever the client has sent before."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from app.gateway.streaming import LOOK_S, Watch

NOTICED_S = 1.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of one TCP connection: the client's, and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    with client, ours:
        yield client, ours


def hang_up(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("end", [hang_up, reset, half_close])
@pytest.mark.parametrize(
    "extra", [b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000], ids=["none", "one", "next", "many"]
)
def test_a_client_that_goes_is_noticed_whatever_it_has_sent(ends, extra, end) -> None:
    client, ours = ends
    gone = Event()
    watch = Watch(ours, gone.set)
    client.setblocking(False)
    if extra:
        client.send(extra)
        assert not gone.wait(LOOK_S * 1.5)  # what is sent is no end
    end(client)
    assert gone.wait(NOTICED_S)
    watch.stop()


def test_a_watch_that_was_stopped_tells_nothing(ends) -> None:
    client, ours = ends
    told: list[bool] = []
    watch = Watch(ours, lambda: told.append(True))
    client.send(b"x")
    gevent.sleep(0.01)
    watch.stop()
    client.close()
    gevent.sleep(LOOK_S * 1.5)
    assert not told
