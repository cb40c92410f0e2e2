"""The periodic jobs and their intervals, one line for each.

Every job is idempotent: with two clocks, or after a late worker, one may run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.jobs import backups, encryption, litellm, provider_lists, quotas, rollups, watch
from app.queue import JOB_TIMEOUT_S


class Entry(NamedTuple):
    """A job, the seconds between its runs, and after how many one is ended."""

    job: Callable[[], object]
    every_s: int
    timeout_s: int = JOB_TIMEOUT_S


SCHEDULE = (
    Entry(rollups.run, every_s=60),
    Entry(quotas.run, every_s=60),
    Entry(encryption.run, every_s=300),
    Entry(litellm.run, every_s=60),
    Entry(provider_lists.run, every_s=60),  # each provider as often as `upstream.list_every_s` says
    Entry(backups.run, every_s=60, timeout_s=backups.TIMEOUT_S),  # as often as `backup.every_hours` says
    Entry(watch.run, every_s=60),
)
