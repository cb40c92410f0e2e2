"""The meter for background processes, imported late.

The meter belongs to the hot side; here it settles the requests of dead web workers.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from redis import Redis

from app.metering.usage import UsageEvent


class Meter(Protocol):
    """The part of `app.metering.reservations.Meter` that the reaper and the janitor use."""

    def overdue(self, limit: int) -> tuple[int, list[str]]:
        """The meter's clock in Unix ms and up to `limit` ids of requests whose lease has expired."""

    def expire(self, request_id: str) -> Any:
        """Settle a hold with an expired lease at its progress, or release it; leave a live hold unchanged."""

    def settle_event(self, event: UsageEvent) -> bool:
        """Settle a spooled event unless its request is already settled; return whether this call did."""


def meter(client: Redis) -> Meter:
    """The meter over the cold side's client. Each script call names the run of the server that it is meant for."""
    from app.metering.reservations import Meter as RedisMeter

    return cast("Meter", RedisMeter(client.execute_command, lambda: str(client.info("server")["run_id"])))
