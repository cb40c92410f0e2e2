"""What pages are made of is asked inside of the cold side's world."""

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
