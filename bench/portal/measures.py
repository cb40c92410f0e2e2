"""What a run measured and its results file keeps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.portal.sizes import Sizes

MEDIAN_MS, P99_MS = 200.0, 500.0  # what is asked for


class Page(msgspec.Struct, kw_only=True):
    """One address: how long its visits took, in ms, and what one of them cost in the database."""

    who: str
    path: str  # ids written as <id>
    kind: str
    median_ms: float
    p99_ms: float
    queries: int
    rows_read: int
    scans: list[str]

    @property
    def holds(self) -> bool:
        return self.median_ms <= MEDIAN_MS and self.p99_ms <= P99_MS


def median(ms: Sequence[float]) -> float:
    return round(statistics.median(ms), 2)


def p99(ms: Sequence[float]) -> float:
    """The 99th percentile by the nearest rank: of fewer than a hundred visits the slowest."""
    return sorted(ms)[max(0, -(-len(ms) * 99 // 100) - 1)]


class Write(msgspec.Struct, kw_only=True):
    """An act over the management API, with everything that happens before its answer, in ms."""

    what: str
    times: int
    median_ms: float
    slowest_ms: float


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
    """Write one line of JSON in place of what the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(raw) + b"\n")
