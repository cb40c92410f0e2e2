"""The job `quotas`: expires what is due, raises alerts of budgets, publishes pending changes, compares Redis's counters
with the ledger, and records who used the portal.

It writes its findings into a Redis hash for the status page; the comparison itself logs drift as an error.
"""

from __future__ import annotations

import msgspec

from app import clock, current, store
from app.jobs.process import job
from app.workflows import reconcile

SHOWN = 50  # drifting counters that the status page shows


@job
def run() -> None:
    """Bring quotas up to date. Repeated runs do no harm."""
    from app.domain import deliveries, identity, key_warnings, sessions, subscriptions, tokens
    from app.extensions import transaction
    from app.workflows import alerts, publication

    while transaction(subscriptions.expire_due):
        pass
    transaction(subscriptions.warn_of_ends)
    while transaction(key_warnings.send_due):
        pass
    transaction(tokens.purge)
    transaction(identity.note_seen, sessions.take_seen())
    transaction(deliveries.requeue_lost)
    alerts.raise_due()  # those that the drainer did not raise
    publication.catch_up()  # expired keys leave Redis by themselves; their records carry the time
    comparison = reconcile.compare(current.redis())
    drifts = [{**drift._asdict(), "drift_nano": drift.nano} for drift in comparison.drift[:SHOWN]]
    current.redis().hset(
        store.QUOTAS_STATUS,
        mapping={
            "at_ms": clock.now_ms(),
            "compared": comparison.compared,
            "drifting": len(comparison.drift),
            "drift": msgspec.json.encode(drifts),
        },
    )
