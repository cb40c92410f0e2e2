"""The admins' world: the same browsers as the portal's, and one restricted model that people ask for."""

from __future__ import annotations

from tests.blueprints.portal.conftest import config, count_queries, guarded, signed_in, small  # noqa: F401
from tests.house import (  # noqa: F401
    app,
    database_url,
    home,
    inside,
    migrated,
    once,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
