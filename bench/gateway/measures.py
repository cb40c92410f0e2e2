"""What a run measured and its results file keeps: one record for each run of `load`, with the CPU that it cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds, by percentile. `load` prints more of them, which are not kept."""

    p50: float
    p99: float


class Load(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is kept of the line that `load` prints. A spread is missing when there was nothing to spread."""

    ok: int
    errors: int
    secs: float
    rps: float
    peak: int
    deltas: int
    lat_ms: Spread | None = None
    ttft_ms: Spread | None = None
    transit_ms: Spread | None = None
    jitter_ms: Spread | None = None


class Measure(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run. `cpu_s` is the gateway's own; `side_s` that of the processes beside it until they were at rest again."""

    load: Load
    cpu_s: float = 0.0
    side_s: dict[str, float] = {}
    kb_a_stream: float | None = None
    first_error: str | None = None

    @property
    def cpu_us(self) -> float | None:
        """A request."""
        return self.cpu_s / self.load.ok * 1e6 if self.load.ok else None

    @property
    def chunk_us(self) -> float | None:
        return self.cpu_s / self.load.deltas * 1e6 if self.load.deltas else None

    @property
    def busy(self) -> float:
        """Which part of its core the gateway used."""
        return self.cpu_s / self.load.secs if self.load.secs else 0.0

    def side_us(self, name: str) -> float | None:
        """A request, of one process beside the gateway."""
        return self.side_s[name] / self.load.ok * 1e6 if name in self.side_s and self.load.ok else None


Runs = dict[str, dict[str, list[Measure]]]  # by what was done, then by target, one a repeat


class Raw(msgspec.Struct, kw_only=True):
    """A whole run of the benchmark."""

    made: str
    machine: dict[str, Any]
    versions: dict[str, str]
    args: dict[str, Any]
    chain: list[str]
    notes: list[str]
    runs: Runs

    def of(self, what: str, target: str) -> list[Measure]:
        return self.runs.get(what, {}).get(target, [])

    def values(self, what: str, target: str, figure: Figure) -> list[float]:
        """The figure of each repeat that has it."""
        found = [figure(measure) for measure in self.of(what, target)]
        return [value for value in found if value is not None]

    def median(self, what: str, target: str, figure: Figure) -> float | None:
        values = self.values(what, target, figure)
        return statistics.median(values) if values else None


Figure = Callable[[Measure], float | None]


def spread(kind: str, part: str) -> Figure:
    """One of a spread's numbers: `spread("ttft", "p99")`."""

    def figure(measure: Measure) -> float | None:
        found: Spread | None = getattr(measure.load, f"{kind}_ms")
        return None if found is None else float(getattr(found, part))

    return figure


def read_load(text: str) -> Load:
    """Raises `msgspec.DecodeError` or `ValidationError` for anything but what `load` prints."""
    return msgspec.json.decode(text, type=Load)


def read_raw(path: Path) -> Raw:
    return msgspec.json.decode(path.read_bytes(), type=Raw)


def write_raw(raw: Raw, path: Path) -> None:
    """Write one line of JSON in place of what the file held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(raw) + b"\n")
