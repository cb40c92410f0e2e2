"""The job `rollups`: derives days, weeks and months from the hours that changed, and checks a sample.

It writes its findings into a Redis hash for the status page; the check itself logs a difference as an error.
"""

from __future__ import annotations

from app import clock, current, store
from app.jobs.process import job
from app.ledger import rollups


@job
def run() -> None:
    """Derive and check. Repeated runs leave the same rollups."""
    derived = rollups.derive()
    differences = rollups.check()
    current.redis().hset(
        store.ROLLUPS_STATUS,
        mapping={
            "at_ms": clock.now_ms(),
            "derived": derived,
            "differences": len(differences),
            "first_difference": str(differences[0]._asdict()) if differences else "",
        },
    )
