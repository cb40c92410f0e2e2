"""Which other hosts have a drainer: known while they beat, remembered when Redis loses everything, forgotten when silent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from app import store
from app.jobs.hosts import SEEN_S, Hosts


def test_hosts_know_each_other_and_not_themselves(wire: redis.Redis) -> None:
    first, second = Hosts(wire, Path("/a")), Hosts(wire, Path("/b"))
    assert first.own != second.own
    for host in (first, second, first):
        host.beat()
    assert (first.others, second.others) == ({second.own}, {first.own})


def test_a_host_is_remembered_when_redis_has_just_lost_everything(wire: redis.Redis) -> None:
    first, second = Hosts(wire, Path("/a")), Hosts(wire, Path("/b"))
    second.beat()
    first.beat()
    wire.flushall()
    first.beat()
    assert first.others == {second.own}


def test_a_host_that_is_silent_is_forgotten_and_one_that_leaves_is_not_told_of(
    wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Hosts(wire, Path("/a")), Hosts(wire, Path("/b"))
    second.beat()
    first.beat()
    later = time.monotonic() + SEEN_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    first.beat()
    assert first.others == set()
    assert not wire.hexists(store.HOSTS, second.own)
    second.beat()
    second.leave()
    first.beat()
    assert first.others == set()
