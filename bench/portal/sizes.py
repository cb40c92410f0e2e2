"""How large the seeded organisation is."""

from __future__ import annotations

import msgspec

PASSWORD = "a password of the benchmark"
ADMIN = "admin"
HEAVY = "heavy"  # the person who uses most
OWNER = "owner"  # who owns the team that uses most


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Counts; `days` is how far back the books go."""

    people: int = 10_000
    teams: int = 500
    models: int = 1_000
    keys: int = 100_000
    rows: int = 5_000_000
    days: int = 180
    providers: int = 12
    audit: int = 300_000
    notices: int = 200_000
    waiting: int = 2_000  # requests for models that wait for a decision
    budget_requests: int = 5_000
    invitations: int = 2_000
    deliveries: int = 100_000
    dead_letters: int = 2_000
