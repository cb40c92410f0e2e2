"""The job `provider_lists`: asks each active provider for its list of models, by which its health is known."""

from __future__ import annotations

from app import current
from app.jobs.process import job


@job
def run() -> None:
    """Ask the providers that are due. Repeated runs ask nobody twice."""
    from app.workflows import model_lists

    if every_s := current.config().upstream.list_every_s:
        model_lists.refresh(every_s=every_s)
