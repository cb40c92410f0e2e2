"""Requests beyond a minute's share are refused, and say when to come again."""

import pytest
import redis
from flask import Flask

from app import current
from app.domain import throttles
from app.domain.errors import Throttled


def test_who_asks_too_often_waits_and_others_do_not(inside: Flask) -> None:
    for _ in range(3):
        throttles.count("export", "ada", 3)
    with pytest.raises(Throttled) as refused:
        throttles.count("export", "ada", 3)
    assert 1 <= refused.value.retry_after_s <= 60
    throttles.count("export", "grace", 3)
    throttles.count("test", "ada", 3)


def test_without_redis_nobody_is_refused(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "redis", lambda: redis.Redis(port=1))
    throttles.count("export", "ada", 0)
