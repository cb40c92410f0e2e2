"""The domain's tests run in the cold side's world."""

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
