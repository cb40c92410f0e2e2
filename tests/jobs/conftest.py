from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from app import store
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.stream import Stream
from app.ledger.recount import server_run
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, valkey_url  # noqa: F401
from tests.ledger import books


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Flask]:
    """Empty books on each database beside an empty Valkey, with their application's context open."""
    url = request.getfixturevalue("books_postgres_url" if request.param == "postgresql" else "books_sqlite_url")
    with books.opened(books.settings(tmp_path, url, redis_url)) as app:
        yield app


@pytest.fixture
def wire(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client like the drainer's own."""
    with redis.Redis.from_url(redis_url, protocol=2, legacy_responses=False) as client:
        yield client


@pytest.fixture
def bookkeeper() -> Bookkeeper:
    return Bookkeeper()


@pytest.fixture
def stream(client: redis.Redis, bookkeeper: Bookkeeper) -> Stream:
    """A drainer's place at the stream, whose entries the bookkeeper posts."""
    made = Stream(client, "ours", bookkeeper)
    made.prepare()
    return made


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def open_meter(wire: redis.Redis) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
