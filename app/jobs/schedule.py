"""The periodic jobs and their intervals, one line for each.

Every job is idempotent: with two clocks, or after a late worker, one may run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.jobs import encryption, provider_lists, quotas, rollups


class Entry(NamedTuple):
    """A job and the seconds between its runs."""

    job: Callable[[], object]
    every_s: int


SCHEDULE = (
    Entry(rollups.run, every_s=60),
    Entry(quotas.run, every_s=60),
    Entry(encryption.run, every_s=300),
    Entry(provider_lists.run, every_s=60),  # each provider as often as `upstream.list_every_s` says
)
