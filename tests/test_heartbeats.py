"""Who tells of itself runs; who is gone, or stands still, is missing."""

from __future__ import annotations

import pytest
import redis

from app import heartbeats, store
from tests.house import wire  # noqa: F401


def test_who_has_not_told_of_itself_is_missing(wire: redis.Redis) -> None:
    assert heartbeats.missing(wire) == ["drainer", "worker", "clock"]
    heartbeats.beat(wire, "worker")
    assert heartbeats.missing(wire) == ["drainer", "clock"]


def test_a_beat_does_not_last(wire: redis.Redis) -> None:
    heartbeats.beat(wire, "clock")
    assert 2 * heartbeats.EVERY_S * 1000 < wire.pttl(store.heartbeat("clock")) <= heartbeats.LAST_MS


@pytest.mark.parametrize("other", ["drainer", "worker"])
def test_one_of_several_is_enough(wire: redis.Redis, other: str) -> None:
    for _ in range(2):
        heartbeats.beat(wire, other)
    assert other not in heartbeats.missing(wire)
