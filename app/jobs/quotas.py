"""The job `quotas`: ends what has expired, tells of budgets near their limits, publishes what changed, and compares
Redis's counters with the books. It also writes down who used the portal.

What it finds is left in a Redis hash for the status page; drift is logged as an error by the comparison itself.
"""

from __future__ import annotations

import msgspec

from app import clock, current, store
from app.jobs.process import job
from app.workflows import reconcile

SHOWN = 50  # drifting counters that the status page gets


@job
def run() -> None:
    """Bring quotas into step with the present minute; any number of runs do no harm."""
    from app.domain import deliveries, identity, key_warnings, sessions, subscriptions, tokens
    from app.extensions import transaction
    from app.workflows import alerts, publication

    while transaction(subscriptions.expire_due):
        pass
    transaction(subscriptions.warn_of_ends)
    while transaction(key_warnings.tell_due):
        pass
    transaction(tokens.purge)
    transaction(identity.note_seen, sessions.take_seen())
    transaction(deliveries.requeue_lost)
    alerts.raise_due()  # what the drainer could not tell of
    publication.catch_up()  # expired keys leave Redis by themselves; their records carry the time
    found = reconcile.compare(current.redis())
    shown = [{**drift._asdict(), "drift_nano": drift.nano} for drift in found.drift[:SHOWN]]
    current.redis().hset(
        store.QUOTAS_STATUS,
        mapping={
            "at_ms": clock.now_ms(),
            "compared": found.compared,
            "drifting": len(found.drift),
            "drift": msgspec.json.encode(shown),
        },
    )
