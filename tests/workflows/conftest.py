"""Workflows run in the cold side's world, or on books that stand alone."""

from tests.house import (  # noqa: F401
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    visitors,
    wire,
)
from tests.ledger.conftest import ledger  # noqa: F401
