"""Waiting for a silent peer ends, waiting for a slow one goes on, and nobody waits with a timer of his own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.socket import socket, socketpair

from app.sockets import Patience


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket, socket]]]:
    """Connected sockets, closed when the test ends."""
    made: list[socket] = []

    def make() -> tuple[socket, socket]:
        pair = socketpair()
        made.extend(pair)
        return pair

    yield make
    for one in made:
        one.close()


def test_a_peer_that_stays_silent_is_given_up_and_one_that_speaks_in_time_is_not(
    pairs: Callable[[], tuple[socket, socket]],
) -> None:
    patience = Patience(1.5)
    ours, theirs = pairs()
    silent, _ = pairs()

    def speak() -> None:
        for n in range(8):
            gevent.sleep(0.3)
            theirs.sendall(b"%d" % n)

    speaking = gevent.spawn(speak)
    listening = gevent.spawn(lambda: [patience.receive(ours) for _ in range(8)])
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        patience.receive(silent)
    assert 1.5 <= time.monotonic() - began < 60
    assert listening.get(timeout=60) == [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"]
    speaking.get(timeout=60)


def test_whoever_is_interrupted_while_waiting_leaves_nothing_behind(pairs: Callable[[], tuple[socket, socket]]) -> None:
    patience = Patience(0.2)
    ours, theirs = pairs()
    waiting = gevent.spawn(patience.receive, ours)
    gevent.sleep(0)
    waiting.kill()
    theirs.sendall(b"later")
    assert patience.receive(ours) == b"later"
    gevent.sleep(0.5)  # longer than it is patient: there is nobody to give up
    theirs.sendall(b"again")
    assert patience.receive(ours) == b"again"


def test_nobody_waits_longer_than_until_when_he_wants_to(pairs: Callable[[], tuple[socket, socket]]) -> None:
    patience = Patience(2.0)
    ours, theirs = pairs()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        patience.receive(ours, began + 0.2)
    assert 0.2 <= time.monotonic() - began < 1.9
    theirs.sendall(b"there")
    with pytest.raises(TimeoutError):  # though there is something to hear
        patience.receive(ours, began)
    assert patience.receive(ours, time.monotonic() + 60) == b"there"
