"""How the cost of reading something grows with its size: the work of a reader must be linear, whatever is sent to it."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
TIMES = 4  # how much larger the larger one is
FREE_S = 0.02  # differences below this are noise


def assert_linear(work: Callable[[T], Any], make: Callable[[int], T], size: int) -> None:
    """`work` on what `make(size)` gives takes about a quarter of what it takes on four times as much."""
    small, large = _seconds(work, make(size)), _seconds(work, make(size * TIMES))
    assert large < small * TIMES * 2.5 + FREE_S, f"{small:.3f} s at {size}, {large:.3f} s at {size * TIMES}"


def _seconds(work: Callable[[T], Any], given: T) -> float:
    """The least CPU time of some runs: what other processes do to us is not counted."""
    found: list[float] = []
    while len(found) < 3 and sum(found) < 0.2:
        started = time.process_time()
        work(given)
        found.append(time.process_time() - started)
    return min(found)


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most memory that `work` takes at a time, beside what there was before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
