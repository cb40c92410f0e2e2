"""The job `deliveries`: sends one mail or webhook; the queue retries it when it raises."""

from __future__ import annotations

from app.jobs.process import job


@job
def send(id: str) -> None:
    """Try one delivery; a finished one is left unchanged."""
    from app.domain import deliveries

    deliveries.send(id)
