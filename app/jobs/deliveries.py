"""The job `deliveries`: one mail or webhook; the letterbox tries it again when it raises."""

from __future__ import annotations

from app.jobs.process import job


@job
def send(id: str) -> None:
    """Try one delivery; one that is over is left alone."""
    from app.domain import deliveries

    deliveries.send(id)
