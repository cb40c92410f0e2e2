"""How the background processes reach the meter: one place, imported late.

The meter belongs to the hot side; here it settles what a dead web worker could not.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from redis import Redis

from app.metering.usage import UsageEvent


class Meter(Protocol):
    """What the reaper and the janitor need of `app.metering.reservations.Meter`."""

    def overdue(self, limit: int) -> tuple[int, list[str]]:
        """The meter's clock, ms, and so many of the requests whose lease has ended by it."""

    def expire(self, request_id: str) -> Any:
        """Settle at its progress, or release, one hold whose lease has ended; a live one is left alone."""

    def settle_event(self, event: UsageEvent) -> bool:
        """Settle a spooled event unless its request is settled already; whether this call did."""


def meter(client: Redis) -> Meter:
    """The meter over a cold client; each script tells which run of the server it was meant for."""
    from app.metering.reservations import Meter as RedisMeter

    return cast("Meter", RedisMeter(client.execute_command, lambda: str(client.info("server")["run_id"])))
