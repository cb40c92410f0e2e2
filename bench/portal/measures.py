"""What was measured, as it is kept in a raw file."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import msgspec

from bench.portal.sizes import Sizes

MEDIAN_MS, P99_MS = 200.0, 500.0  # what is asked for


class Page(msgspec.Struct, kw_only=True):
    """One address: the milliseconds of each visit, and what it took in the database."""

    who: str
    path: str  # ids told as <id>
    kind: str
    ms: list[float]
    queries: int
    rows_read: int
    scans: list[str]

    @property
    def median(self) -> float:
        return statistics.median(self.ms)

    @property
    def p99(self) -> float:
        """The nearest rank; of fewer than a hundred visits the slowest."""
        return sorted(self.ms)[max(0, -(-len(self.ms) * 99 // 100) - 1)]

    @property
    def holds(self) -> bool:
        return self.median <= MEDIAN_MS and self.p99 <= P99_MS


class Write(msgspec.Struct, kw_only=True):
    """An act over the management API, with all that follows before it is answered."""

    what: str
    ms: list[float]


class Export(msgspec.Struct, kw_only=True):
    """A list as a file, and by how much the web worker's memory grew at most while it was sent."""

    path: str
    rows: int
    seconds: float
    mbytes: float
    grown_mb: float


class Derived(msgspec.Struct, kw_only=True):
    """A run of the job `rollups` after new events: seconds on the seeded ledger and on one that had nothing."""

    events: int
    full_s: float
    empty_s: float


class Raw(msgspec.Struct, kw_only=True):
    """A whole run."""

    made: str
    machine: dict[str, Any]
    versions: dict[str, str]
    sizes: Sizes
    repeats: int
    seeded_s: float | None
    started_s: float
    pages: list[Page]
    writes: list[Write]
    exports: list[Export]
    derived: list[Derived]


def read_raw(path: Path) -> Raw:
    return msgspec.json.decode(path.read_bytes(), type=Raw)


def write_raw(raw: Raw, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(raw), indent=1) + b"\n")
