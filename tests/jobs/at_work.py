"""A drainer that runs in a thread of its own, as in its process, until the test is done with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from app.jobs.drainer import Drainer
from tests.services.waiting import PATIENCE_S


@contextmanager
def at_work(app: Flask, drainer: Drainer) -> Iterator[Drainer]:
    def work() -> None:
        with app.app_context():
            drainer.run()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield drainer
    finally:
        drainer.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
