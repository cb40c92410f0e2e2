"""The job `watch`: compares figures of the deployment with the thresholds of the settings."""

from __future__ import annotations

from app.jobs.process import job


@job
def run() -> None:
    """Notify admins of what is due. Repeated runs notify once."""
    from app.workflows import watch

    watch.raise_due()
