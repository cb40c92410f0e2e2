"""The reaper: settles or releases the holds of dead processes.

The promise: a hold whose lease has ended is gone within the second, charged at its last stored progress. It needs Redis
only, so no database delays it; and what it settled is in a spool of its own until the ledger has it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from redis import RedisError, ResponseError

from app import store
from app.jobs.trouble import Trouble
from app.metering.outbox import REAPER, Spool
from app.metering.reservations import Meter
from app.metering.usage import UsageEvent

AT_ONCE = 1000


class Reaper:
    """Ends holds whose lease has expired. Raises Redis's errors while Redis is away."""

    def __init__(self, meter: Meter, spool_dir: Path, trouble: Trouble) -> None:
        self._meter = meter
        self._spool_dir = spool_dir
        self._trouble = trouble
        self._spool: Spool | None = None  # opened when there is something to write
        self.reaped = 0

    def reap(self) -> int:
        """Settle or release the holds whose lease has expired; return how many there were."""
        _, overdue = self._meter.overdue(AT_ONCE)
        for request_id in overdue:
            try:
                event = self._meter.expire(request_id)
                if event is not None:
                    self.reaped += 1
                    self._keep(event)
            except Exception as error:  # one bad hold must not delay the others
                if isinstance(error, RedisError) and (
                    not isinstance(error, ResponseError) or store.is_not_serving(error)
                ):
                    raise  # Redis is away
                self._trouble.note("reaper", error, request_id=request_id)
        return len(overdue)

    def _keep(self, event: UsageEvent) -> None:
        if self._spool is None:
            self._spool = Spool(self._spool_dir, REAPER)
        self._spool.append(msgspec.json.encode(event))
