"""Log lines reach Redis from a thread; while it is away they wait, within bounds."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from app import store
from app.runtime import log_stream
from app.runtime.log_stream import LogStream
from config import ROOT
from tests.services.waiting import until


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("tests.log_stream")
    found.propagate = False
    found.setLevel("INFO")
    yield found
    for handler in found.handlers:
        handler.close()
    found.handlers.clear()


def lines(wire: redis.Redis) -> list[str]:
    return [fields["line"] for _, fields in wire.xrange(store.LOGS)]


def test_lines_arrive_in_their_order(logger: logging.Logger, redis_url: str) -> None:
    wire = store.connect(redis_url)
    handler = LogStream(redis_url)
    handler.begin()
    logger.addHandler(handler)
    for number in range(1200):
        logger.info("line %s", number)
    until(lambda: wire.xlen(store.LOGS) == 1200, lambda: str(wire.xlen(store.LOGS)))
    assert lines(wire) == [f"line {number}" for number in range(1200)]


def test_lines_wait_for_redis_and_the_oldest_are_dropped(
    logger: logging.Logger, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "MOST_WAITING", 3)
    monkeypatch.setattr(log_stream, "EVERY_S", 3600)
    handler = LogStream("unix:///nonexistent")
    handler.begin()
    logger.addHandler(handler)
    for number in range(5):
        logger.info("line %s", number)
    handler.flush()
    wire = store.connect(redis_url)
    handler._url = redis_url
    handler.begin()
    handler.flush()
    assert lines(wire) == ["line 2", "line 3", "line 4"]


def test_a_master_says_nothing_and_its_forks_do_once_they_have_begun(
    logger: logging.Logger, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = store.connect(redis_url)
    handler = LogStream(redis_url)
    logger.addHandler(handler)
    logger.info("of the master")
    monkeypatch.setattr(handler, "_process", handler._process - 1)  # as a fork finds it
    logger.info("of a worker that loads")
    handler.flush()
    assert lines(wire) == []
    handler.begin()
    logger.info("of a worker that serves")
    handler.flush()
    assert lines(wire) == ["of a worker that loads", "of a worker that serves"]


def test_the_handler_does_not_load_redis_by_itself() -> None:
    """Its client holds names of TLS that gevent has to patch first."""
    script = "import sys, config; from app.runtime import logs; logs.configure(config.Config(), 'web');"
    script += "import logging; logging.warning('x'); print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
