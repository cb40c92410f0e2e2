"""Errors of the drainer's parts: logged, shown on the status page, and isolated from the other parts.

The promise: an error in one part never stops another, is never silent, and never floods the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

QUIET_S = 10.0  # a part's errors are logged once in this time

log = structlog.get_logger(__name__)


class Trouble:
    """The parts that fail now: `parts` has the type of each one's last error."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._logged: dict[str, float] = {}

    def attempt(self, part: str, work: Callable[[], object]) -> None:
        """Run a part; its error is recorded and not raised, so that the other parts go on."""
        try:
            work()
            self.clear(part)
        except Exception as error:
            self.note(part, error)

    def note(self, part: str, error: Exception, **more: object) -> None:
        """Record a part's error for the status page, and log it with `more` unless one was logged recently."""
        self.parts[part] = type(error).__name__
        if time.monotonic() - self._logged.get(part, float("-inf")) > QUIET_S:
            self._logged[part] = time.monotonic()
            log.error(
                "a part of the drainer failed", part=part, error=reason_of(error), kind=type(error).__name__, **more
            )

    def clear(self, part: str) -> None:
        """The part works again."""
        self.parts.pop(part, None)

    def summary(self) -> str:
        """One line for the status page; empty when every part works."""
        return "; ".join(f"{part}: {kind}" for part, kind in sorted(self.parts.items()))


def reason_of(error: Exception) -> str:
    """The error in one line, without the SQL and parameters that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).split("\n", 1)[0][:500]
