"""Forms that make a secret: however often one is sent it makes one, and shows it to its person for a minute."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import current
from app.domain.errors import Conflict, Unavailable
from app.domain.person import Person
from app.web import idempotency
from app.web.idempotency import Created, create_once, fresh_number
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    wire,
)

ADA, BOB = Person(id="ada"), Person(id="bob")


class Maker:
    """Makes things, and knows how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Created:
        self.count += 1
        return Created(f"id-{self.count}", f"secret-{self.count}")


@pytest.fixture
def make() -> Maker:
    return Maker()


def test_a_form_that_is_sent_again_shows_what_it_made(inside: Flask, make: Maker) -> None:  # noqa: F811
    assert create_once(ADA, "n", make) == create_once(ADA, "n", make) == Created("id-1", "secret-1")
    assert create_once(ADA, "other", make) == Created("id-2", "secret-2")
    assert make.count == 2
    assert len({fresh_number() for _ in range(100)}) == 100


def test_a_number_is_its_persons_own(inside: Flask, make: Maker) -> None:  # noqa: F811
    create_once(ADA, "n", make)
    assert create_once(BOB, "n", make) == Created("id-2", "secret-2")


def test_a_form_without_a_number_is_made_each_time(inside: Flask, make: Maker) -> None:  # noqa: F811
    for number in (None, ""):
        create_once(ADA, number, make)
    assert make.count == 2


def test_after_a_minute_only_what_it_made_is_known(inside: Flask, make: Maker, wire: redis.Redis) -> None:  # noqa: F811
    create_once(ADA, "n", make)
    kept = {name: wire.get(name) for name in wire.scan_iter("made*")}
    assert "secret-1" not in str(kept)
    lives = {str(name).partition(":")[0]: wire.ttl(name) for name in kept}
    assert 0 < lives["made-text"] <= idempotency.SHOWN_AGAIN_S < lives["made"] <= idempotency.REMEMBERED_S
    for name in kept:
        if str(name).startswith("made-text"):
            wire.delete(name)
    assert create_once(ADA, "n", make) == Created("id-1", None)


def test_a_form_that_failed_may_be_sent_again_at_once(inside: Flask, make: Maker, wire: redis.Redis) -> None:  # noqa: F811
    def refuse() -> Created:
        raise Conflict("no")

    with pytest.raises(Conflict):
        create_once(ADA, "n", refuse)
    assert list(wire.scan_iter("made*")) == [], "nobody waits for what failed"
    assert create_once(ADA, "n", make) == Created("id-1", "secret-1")


def test_who_comes_second_waits_for_the_first(inside: Flask, make: Maker) -> None:  # noqa: F811
    making, go_on = threading.Event(), threading.Event()

    def slowly() -> Created:
        making.set()
        assert go_on.wait(10)
        return make()

    def send() -> Created:
        with inside.app_context():
            return create_once(ADA, "n", slowly)

    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(send)
        assert making.wait(10)
        second = senders.submit(send)
        go_on.set()
        assert first.result(10) == second.result(10) == Created("id-1", "secret-1")


def test_who_waits_too_long_is_told_so(inside: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    pauses: list[float] = []
    wire.set("made:ada:n", "")  # whoever is making it never ends
    times = iter([0.0, idempotency.CREATING_S - 1.0, idempotency.CREATING_S + 1.0])
    monkeypatch.setattr(idempotency, "time", SimpleNamespace(monotonic=lambda: next(times), sleep=pauses.append))
    with pytest.raises(Unavailable):
        create_once(ADA, "n", Maker())
    assert pauses == [idempotency.LOOK_EVERY_S]


def test_without_redis_nothing_is_made_twice_or_at_all(
    inside: Flask,  # noqa: F811
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(current, "redis", lambda: gone)
    with pytest.raises(Unavailable):
        create_once(ADA, "n", make)
    assert make.count == 0


def test_what_is_made_is_shown_even_when_redis_goes_away_meanwhile(
    inside: Flask,  # noqa: F811
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))

    def make_and_lose() -> Created:
        monkeypatch.setattr(current, "redis", lambda: gone)
        return make()

    assert create_once(ADA, "n", make_and_lose) == Created("id-1", "secret-1")
