"""The job `rollups`: derives days, weeks and months from the hours that changed, and counts a sample again.

What it finds is left in a Redis hash for the status page; a difference is logged as an error by the check itself.
"""

from __future__ import annotations

from app import clock, current, store
from app.jobs.process import job
from app.ledger import rollups


@job
def run() -> None:
    """Derive and check; any number of runs leave the same rollups."""
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
