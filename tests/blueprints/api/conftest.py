"""The doors' tests run in the cold side's world; what the API answers in any of them has to be as it is described."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import described
from tests.house import (  # noqa: F401
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    once,
    people,
    quick_hashes,
    visitors,
    wire,
)


@pytest.fixture(autouse=True)
def as_described(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: every answer of the API had a described status and a body that fits its schema."""
    faults = described.watch(request.getfixturevalue("app")) if "app" in request.fixturenames else []
    yield
    assert faults == []
