from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from app.extensions import db
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, valkey_url  # noqa: F401
from tests.ledger import books


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Flask]:
    """Empty books on each database beside an empty Valkey, with their application's context open."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = books.open_books(books.settings(tmp_path, url, redis_url))
    with made.app_context():
        yield made
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def wire(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
