"""How the cost of reading something grows with its size: the work of a reader must be linear, whatever is sent to it."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
TIMES = 4  # how much larger the larger one is
FREE_S = 0.02  # differences below this are noise


def assert_linear(work: Callable[[T], Any], make: Callable[[int], T], size: int) -> None:
    """`work` on what `make(size)` gives takes about a quarter of what it takes on four times as much."""
    given = make(size)
    small = min(seconds(work, given) for _ in range(3))
    given = make(size * TIMES)
    large = float("inf")
    for _ in range(5):  # of the longer ones one that is fast enough will do
        large = min(large, seconds(work, given))
        if large < small * TIMES * 2.5 + FREE_S:
            return
    raise AssertionError(f"{small:.3f} s at {size}, {large:.3f} s at {size * TIMES}")


def seconds(work: Callable[[T], Any], given: T) -> float:
    """The CPU time of a run: neither what other processes do to us is counted, nor Python's collector, whose work grows
    with all that this process holds."""
    gc.disable()
    try:
        started = time.process_time()
        work(given)
        return time.process_time() - started
    finally:
        gc.enable()


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most memory that `work` takes at a time, beside what there was before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
