"""Connections to upstreams: kept while they are fit for it, and read within bounds, with TLS and without."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import pytest

from app.providers import dial, http
from app.providers.addresses import AddressPolicy
from app.providers.base import UpstreamError
from app.providers.dial import Dial
from app.providers.http import Pool
from app.providers.settings import Deadlines
from app.runtime.sockets import Patience
from bench.gateway.builds import trust
from tests.services.tls import TlsRelay
from tests.services.upstream import (
    Answer,
    Behaviour,
    Exchange,
    Hang,
    Raw,
    Stream,
    Upstream,
    Wire,
    answer_twice,
    crash,
    say_nonsense,
    stay_open,
)

PATH = "/said"
POLICY = AddressPolicy(allow_private=True)


@pytest.fixture(params=["plain", "tls"])
def pool(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pool]:
    if request.param == "plain":
        made = Pool(Dial(upstream.origin, deadlines=Deadlines.alike(1), policy=POLICY))
        yield made
        made.close()
        return
    authority = trust(tmp_path)
    context = gevent.ssl.SSLContext(
        gevent.ssl.PROTOCOL_TLS_CLIENT
    )  # what `ssl` is in a process that gevent has patched
    context.load_verify_locations(authority.ca)
    monkeypatch.setattr(dial, "_tls", lambda: context)
    relay = TlsRelay(authority, upstream.port)
    made = Pool(Dial(f"https://localhost:{relay.port}", deadlines=Deadlines.alike(1), policy=POLICY))
    yield made
    made.close()
    relay.close()


def said(pool: Pool) -> bytes:
    """The first piece of an answer whose end nobody waits for."""
    answer = pool.request("POST", PATH, {}, [b"{}"])
    piece = answer.read()
    answer.finish()
    answer.close()
    return piece


def test_a_connection_is_kept_once_the_end_has_come(pool: Pool, upstream: Upstream) -> None:
    upstream.always(PATH, Stream([b"one"], done=False))
    for _ in range(3):
        assert said(pool) == b"one"
        gevent.sleep(0.1)
    assert len({exchange.connection for exchange in upstream.requests}) == 1


@pytest.mark.parametrize("after", [stay_open, crash, say_nonsense, answer_twice])
def test_a_connection_is_never_used_again_whose_answer_did_not_end(
    pool: Pool, upstream: Upstream, after: Callable[..., Any]
) -> None:
    upstream.always(PATH, Stream([b"one"], done=False, after=after))
    for _ in range(2):
        assert said(pool) == b"one"
        gevent.sleep(0.1)
    assert len({exchange.connection for exchange in upstream.requests}) == 2


@pytest.mark.slow
def test_a_connection_whose_end_does_not_come_is_closed(pool: Pool, upstream: Upstream) -> None:
    upstream.script(PATH, Stream([b"one"], done=False, after=stay_open))
    assert said(pool) == b"one"
    gevent.sleep(http.END_S + 1.5)
    upstream.wait_for_client_gone(upstream.last)


def test_an_answer_is_waited_for_until_a_moment_and_then_as_before(pool: Pool, upstream: Upstream) -> None:
    upstream.script(PATH, Stream([b"one", b"two"], done=False, delay_s=0.6))
    answer = pool.request("POST", PATH, {}, [b"{}"])
    assert answer.read() == b"one"
    began = time.monotonic()
    with pytest.raises(UpstreamError) as raised:
        answer.read(began + 0.05)
    assert raised.value.timed_out
    assert time.monotonic() - began < 0.5
    assert answer.read() == b"two"
    assert answer.read() == b""


def test_what_came_before_nonsense_is_read_first(pool: Pool, upstream: Upstream) -> None:
    upstream.script(PATH, Stream([b"one"], done=False, after=say_nonsense))
    answer = pool.request("POST", PATH, {}, [b"{}"])
    assert answer.read() == b"one"
    with pytest.raises(UpstreamError, match="not HTTP"):
        answer.read()
    answer.close()


def test_a_body_that_is_too_large_is_an_error(pool: Pool, upstream: Upstream) -> None:
    upstream.script(PATH, Answer(b"x" * 200_000))
    answer = pool.request("POST", PATH, {}, [b"{}"])
    with pytest.raises(UpstreamError, match="too large"):
        answer.read_all(100_000)
    answer.close()


@pytest.mark.parametrize("size", [*range((1 << 20) - 2, (1 << 20) + 300, 7), 3 << 20, (2 << 20) + 129])
def test_what_is_unpacked_is_whole_at_any_size(size: int) -> None:
    unpacker = http._Unpacker("gzip")
    unpacker.feed(gzip.compress(b"\0" * size))
    assert sum(map(len, iter(unpacker.unpacked, b""))) == size
    assert unpacker.is_whole


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 60_000]
)
def test_a_head_that_never_ends_is_an_error(pool: Pool, upstream: Upstream, data: bytes) -> None:
    upstream.always(PATH, Raw(data))
    with pytest.raises(UpstreamError, match="head of the provider's answer is too large"):
        pool.request("POST", PATH, {}, [b"{}"])


def test_a_certificate_of_nobody_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    relay = TlsRelay(trust(tmp_path), upstream.port)
    with pytest.raises(UpstreamError, match="certificate"):
        Pool(Dial(f"https://localhost:{relay.port}", deadlines=Deadlines.alike(5), policy=POLICY)).request(
            "GET", PATH, {}
        )
    relay.close()


class Dripping(Behaviour):
    """The head of an answer, a byte at a time and without an end."""

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.send(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            wire.send(b"x")
            wire.wait(0.05)


TIMES = Deadlines(connect_s=1, first_byte_s=1, idle_s=30, total_s=30)
SOON = 20  # seconds, long before any other deadline


@pytest.mark.parametrize(
    ("deadlines", "behaviour", "words"),
    [
        (TIMES, Hang(), "did not begin to answer within 1 s"),
        (TIMES, Stream([{}], first_delay_s=60), "did not begin to answer within 1 s"),
        (TIMES, Dripping(), "did not begin to answer within 1 s"),
        (TIMES._replace(first_byte_s=30, idle_s=1), Stream([{}], hang_after=1), "nothing came for 1 s"),
        (TIMES._replace(first_byte_s=30, total_s=1), Stream([{}] * 1000, delay_s=0.05), "took longer than 1 s"),
        (TIMES._replace(first_byte_s=30, total_s=1), Hang(), "took longer than 1 s"),
    ],
    ids=["no head", "no body", "a head for ever", "a silence", "a stream for ever", "all in all"],
)
def test_each_deadline_ends_an_answer_and_says_which_it_was(
    pool: Pool, upstream: Upstream, deadlines: Deadlines, behaviour: Behaviour, words: str
) -> None:
    upstream.script(PATH, behaviour)
    pool.deadlines, pool.patience = deadlines, Patience(deadlines.idle_s)
    began = time.monotonic()
    with pytest.raises(UpstreamError) as failed, closing(pool.request("POST", PATH, {}, [b"{}"])) as answer:
        answer.read_all()
    assert words in failed.value.message and failed.value.timed_out and not failed.value.unconnected
    assert 1 <= time.monotonic() - began < SOON


def test_a_first_byte_may_take_longer_than_a_silence(pool: Pool, upstream: Upstream) -> None:
    upstream.script(PATH, Answer({"good": True}, delay_s=1.5))
    deadlines = TIMES._replace(first_byte_s=30, idle_s=0.5)
    pool.deadlines, pool.patience = deadlines, Patience(deadlines.idle_s)
    assert pool.request("POST", PATH, {}, [b"{}"]).read_all() == b'{"good": true}'
