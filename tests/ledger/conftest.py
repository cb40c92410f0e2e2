from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from tests.ledger import books


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.services, pytest.mark.both_databases])])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """Empty books on each database, with their application's context open."""
    url = request.getfixturevalue("books_postgres_url" if request.param == "postgresql" else "books_sqlite_url")
    with books.opened(books.settings(tmp_path, url)) as app:
        yield app
