"""The drainer waits out a Redis and a PostgreSQL that are killed under it: every event lands exactly once."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import redis
from flask import Flask

from app import store
from app.extensions import db
from app.jobs.drainer import Drainer
from tests.jobs.at_work import at_work
from tests.ledger import books
from tests.ledger.books import encode, some_events
from tests.services.postgres import Postgres
from tests.services.valkey import running_valkey
from tests.services.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.services]


def draining(app: Flask, url: str, spool_dir: Path) -> AbstractContextManager[Drainer]:
    return at_work(app, Drainer(url, spool_dir, claim_after_ms=500))


def send(wire: redis.Redis, seed: int) -> None:
    with wire.pipeline(transaction=False) as pipe:
        for told in some_events(500, seed):
            pipe.xadd(store.USAGE, {"e": encode(told)})
        pipe.execute()


def test_a_redis_that_was_killed_is_waited_for(tmp_path: Path) -> None:
    with running_valkey() as server:
        app = books.open_books(books.settings(tmp_path, None, server.url))
        with redis.Redis.from_url(server.url) as wire, app.app_context():
            with draining(app, server.url, tmp_path / "spool"):
                send(wire, 1)
                server.kill()  # the batch may be anywhere between taken and acknowledged
                time.sleep(1)
                server.start()
                send(wire, 2)
                until(lambda: books.count_entries() == 1000 and wire.xlen(store.USAGE) == 0)
            books.assert_sums_equal_entries()
            db.engine.dispose()


def test_a_database_that_was_stopped_is_waited_for(
    tmp_path: Path, postgres: Postgres, postgres_url: str, redis_url: str, wire: redis.Redis
) -> None:
    app = books.open_books(books.settings(tmp_path, postgres_url, redis_url))
    with app.app_context():
        with draining(app, redis_url, tmp_path / "spool") as drainer:
            send(wire, 1)
            postgres.stop()
            try:
                send(wire, 2)
                until(lambda: "posting" in drainer.trouble.parts)
                assert wire.xlen(store.USAGE) >= 500
            finally:
                postgres.start()
            until(lambda: wire.xlen(store.USAGE) == 0)
            until(lambda: "posting" not in drainer.trouble.parts)
        assert books.count_entries() == 1000
        books.assert_sums_equal_entries()
        db.engine.dispose()
