"""Work in a greenlet of its own, which is waited for a while at a time.

It begins at the first wait, by one switch and without a turn of the event loop: work that is done in time costs a few µs
more than a call would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gevent import getcurrent
from gevent.hub import get_hub
from greenlet import greenlet

T = TypeVar("T")


class Work(Generic[T]):
    """What `run` answers or raises, once it is done. One greenlet at a time waits for it."""

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run
        self._greenlet: Any = greenlet(self._work, get_hub())
        self._waiter: Any = None
        self._value: Any = None
        self._error: BaseException | None = None
        self.is_done = False

    def wait(self, seconds: float) -> bool:
        """Whether it is done, having waited for so many seconds at most."""
        if self.is_done:
            return True
        hub = get_hub()
        self._waiter = getcurrent()
        timer = hub.loop.timer(seconds)
        timer.start(self._waiter.switch)
        try:
            if self._greenlet:
                hub.switch()
            else:
                self._greenlet.switch()
        finally:
            self._waiter = None
            timer.stop()
            timer.close()
        return self.is_done

    def result(self) -> T:
        """What the work answered, once it is done. Raises what it raised."""
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def _work(self) -> None:
        try:
            self._value = self._run()
        except BaseException as error:  # of whatever kind: whoever asks for the result gets it
            self._error = error
        self.is_done = True
        if self._waiter is not None:
            self._greenlet.parent = self._waiter  # where a greenlet that ends goes on
