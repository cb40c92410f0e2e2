"""The job `encryption`: carries out the rotation of the encryption key that was asked for or was killed half-way, and starts
one when the key is old."""

from __future__ import annotations

from app.jobs.process import job


@job
def run() -> None:
    """Rotate if there is something to rotate. Repeated runs do no harm."""
    from app.extensions import transaction
    from app.workflows import key_rotation

    transaction(key_rotation.start_if_due)
    key_rotation.run()
