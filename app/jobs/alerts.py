"""Selects the budgets to check for alerts: those of counters with new postings, and those that refused requests.

The promise: every charged counter is checked after the ledger has the charge, and none is forgotten if nobody could be
notified at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from app.jobs.bookkeeper import Bookkeeper, Counter
from app.jobs.stream import Stream

Scope = tuple[str, str]  # kind and id


class Alerts:
    """Passes charged counters and refused scopes to `raise_for`; `exhausted` returns the scopes refused since its last call."""

    def __init__(
        self,
        stream: Stream,
        bookkeeper: Bookkeeper,
        raise_for: Callable[[Collection[Counter], Collection[Scope]], object],
        exhausted: Callable[[], Collection[Scope]] = tuple,
    ) -> None:
        self._stream = stream
        self._bookkeeper = bookkeeper
        self._raise_for = raise_for
        self._exhausted = exhausted
        self._refused: list[
            tuple[bytes, set[Scope]]
        ] = []  # scopes whose budgets refused, by the newest event of that moment

    def look(self) -> None:
        """Raise the alerts for what was posted since the last time.

        A budget that refused a request is checked once the ledger has everything that was spent before.
        """
        if refused := set(self._exhausted()):
            self._refused.append((self._stream.newest(), refused))
        ready = [entry for entry in self._refused if self._stream.is_drained_to(entry[0])]
        charged = frozenset(self._bookkeeper.charged)
        self._raise_for(charged, set().union(*(scopes for _, scopes in ready)))
        self._bookkeeper.charged -= charged
        self._refused = [entry for entry in self._refused if entry not in ready]
