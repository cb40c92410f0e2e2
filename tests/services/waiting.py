"""Waiting in tests. How long a busy machine takes says nothing about the product: what should come is waited for
patiently, and a promise is held against the moment of asking, never against that of the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 60.0


def until(met: Callable[[], object], why: Callable[[], object] = lambda: "it did not happen") -> None:
    """Wait until `met()`; `why()` is shown when it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)


def within(seconds: float, kept: Callable[[], object]) -> None:
    """Whoever asks later than `seconds` from now finds it kept, and those before sooner or later."""
    promised = time.monotonic() + seconds
    while True:
        asked_at = time.monotonic()
        if kept():
            break
        assert asked_at < promised, f"not kept {asked_at - promised + seconds:.2f} s later"
        time.sleep(0.02)
    time.sleep(max(0.0, promised - time.monotonic()))  # other workers have as long
