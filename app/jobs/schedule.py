"""What runs by itself and how often: one line a job.

Two clocks would run each job twice, and a late worker may find two of one: every job is idempotent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.jobs import quotas, rollups


class Entry(NamedTuple):
    """A job and the seconds between its runs."""

    job: Callable[[], object]
    every_s: int


SCHEDULE = (
    Entry(rollups.run, every_s=60),
    Entry(quotas.run, every_s=60),
)
