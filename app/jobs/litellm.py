"""The jobs of the synchronisation with LiteLLM: reading for a plan, carrying out a run, and looking what is due."""

from __future__ import annotations

from app.jobs.process import job


@job
def make_plan(id: str) -> None:
    """Read both sides for a plan. A plan that is read stays as it is."""
    from app.workflows import litellm_sync

    litellm_sync.make_plan(id)


@job
def go_on(id: str) -> None:
    """Carry out the steps of a run that wait."""
    from app.workflows import litellm_sync

    litellm_sync.go_on(id)


@job
def run() -> None:
    """Go on with a run whose process died, and begin what is due."""
    from app.workflows import litellm_sync

    litellm_sync.look()
