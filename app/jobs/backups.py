"""The job `backups`: a backup now and then, into the folder of the settings."""

from __future__ import annotations

from app import current
from app.jobs.process import job

TIMEOUT_S = 3600  # the worker does nothing else meanwhile: very large databases are better backed up from outside


@job
def run() -> None:
    """Make a backup if one is due. Repeated runs make one."""
    from app.workflows import backups

    backups.back_up_if_due(current.config())
