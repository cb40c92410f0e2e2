"""Requests a minute by this process's own count, for while Redis is away: rates fail open, but not without bound."""

from __future__ import annotations

import time

KEPT = 20_000


class LocalRates:
    """Token buckets of keys whose limit was seen in a reserve."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}  # level, and when it was that

    def learn(self, key_id: str, requests_a_minute: int) -> None:
        """Remember the tightest limit that a key had; below 0 there is none."""
        if len(self._limits) >= KEPT:
            self._limits.clear()
            self._buckets.clear()
        self._limits[key_id] = requests_a_minute

    def limit(self, key_id: str) -> int:
        return self._limits.get(key_id, -1)

    def wait_s(self, key_id: str) -> int:
        """Take one request; 0 when it may go on, else the whole seconds until one may."""
        limit = self.limit(key_id)
        if limit < 0:
            return 0
        now = time.monotonic()
        level, since = self._buckets.get(key_id, (float(limit), now))
        level = min(limit, level + (now - since) * limit / 60)
        if level < 1:
            return max(1, -int(-(1 - level) * 60 // max(limit, 1)))
        self._buckets[key_id] = (level - 1, now)
        return 0
