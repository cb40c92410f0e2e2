"""The clock of the Procfile: each job of the schedule is put in when it is due, whatever Redis and the time of day do."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import rq.cron

from app import queue as queue_module
from app.jobs import schedule
from app.jobs.clock import Clock
from app.runtime import heartbeats


def test_the_clock_puts_each_job_in_once_when_it_is_due(redis_url: str, wire: redis.Redis) -> None:
    connection = queue_module.connect(redis_url)
    clock = Clock(connection)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)
    assert clock.enqueue_jobs() == []
    jobs = queue_module.queue(connection).jobs
    assert {job.func_name for job in jobs} == {
        f"app.jobs.{name}.run"
        for name in ("rollups", "quotas", "encryption", "litellm", "provider_lists", "backups", "watch")
    }
    every_s = {f"{entry.job.__module__}.run": entry.every_s for entry in schedule.SCHEDULE}
    assert all(
        0 < wire.ttl(f"rq:job:{job.id}") <= every_s[job.func_name] or job.ttl == every_s[job.func_name] for job in jobs
    )


def test_the_clock_goes_by_a_timer_and_not_by_a_clock_that_may_be_wrong(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(queue_module.connect(redis_url))
    right = rq.cron.now
    monkeypatch.setattr(rq.cron, "now", lambda: right() + timedelta(hours=1))
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)
    monkeypatch.setattr(rq.cron, "now", right)
    later = time.monotonic() + 301
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)


def test_the_clock_tells_of_itself_at_each_look(redis_url: str, wire: redis.Redis) -> None:
    clock = Clock(queue_module.connect(redis_url))
    clock.register_birth()
    clock.enqueue_jobs()
    assert clock.calculate_sleep_interval() <= heartbeats.EVERY_S
    clock.heartbeat()
    assert "clock" not in heartbeats.missing(wire)


def test_the_clock_goes_on_while_redis_is_away(home: Path, wire: redis.Redis, redis_url: str) -> None:
    clock = Clock(queue_module.connect(f"unix://{home}/nowhere.sock?db=0"))
    clock.register_birth()
    assert clock.enqueue_jobs() == []
    clock.save()
    clock.heartbeat()
    assert clock.calculate_sleep_interval() >= 1
    clock.register_death()
    clock.connection = queue_module.connect(redis_url)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)


def test_a_job_that_no_worker_takes_is_gone_before_the_next_one_is_due(redis_url: str) -> None:
    connection = queue_module.connect(redis_url)
    Clock(connection).enqueue_jobs()
    lives = {job.func_name: job.ttl for job in queue_module.queue(connection).jobs}
    assert lives == {f"{entry.job.__module__}.run": entry.every_s for entry in schedule.SCHEDULE}


def test_what_could_not_be_put_in_stays_due(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(queue_module.connect(redis_url))
    right = queue_module.queue

    def away(_: redis.Redis) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(queue_module, "queue", away)
    assert clock.enqueue_jobs() == []
    monkeypatch.setattr(queue_module, "queue", right)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)


def test_the_clock_sleeps_until_something_is_due_and_never_long(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(queue_module.connect(redis_url))
    assert clock.calculate_sleep_interval() == 1.0, "what is due already was not reached"
    clock.enqueue_jobs()
    assert clock.calculate_sleep_interval() == heartbeats.EVERY_S
    later = time.monotonic() + schedule.SCHEDULE[0].every_s - 3
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert 1.0 <= clock.calculate_sleep_interval() <= 3.1
