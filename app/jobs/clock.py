"""The clock of the Procfile: enqueues each job of `app.jobs.schedule` when it is due.

It is RQ's own cron scheduler, which here writes JSON as the worker reads it and drops a job that no worker took in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import structlog
from redis import Redis, RedisError
from redis.client import Pipeline
from rq.cron import CronJob, CronScheduler
from rq.exceptions import SchedulerNotFound
from rq.job import Job

from app import queue as queue_module
from app.jobs import process
from app.jobs.schedule import SCHEDULE
from app.runtime import heartbeats

KEPT_RUNS = 5  # of each job, for the page of the jobs

T = TypeVar("T")

log = structlog.get_logger("app.jobs.clock")  # run as a script, the module has another name


class ScheduledJob(CronJob):
    """One line of the schedule. It uses a timer, so that a wrong clock cannot delay it."""

    due = 0.0

    def should_run(self) -> bool:
        return time.monotonic() >= self.due

    def set_enqueue_time(self, time_of_day: datetime) -> None:
        super().set_enqueue_time(time_of_day)
        assert self.interval is not None
        self.due = time.monotonic() + self.interval

    def enqueue(self, connection: Redis) -> Job:
        """Enqueue the job. It is dropped if no worker takes it before the next one is due.

        RQ's own history of a scheduled job, and the result of each run, are kept for as many runs as `KEPT_RUNS`.
        """
        assert self.func is not None
        assert self.interval is not None
        keep_s = KEPT_RUNS * self.interval
        with connection.pipeline() as pipeline:
            job = queue_module.queue(connection).enqueue(
                self.func,
                ttl=self.interval,
                job_timeout=self.job_options["job_timeout"],
                result_ttl=keep_s,
                failure_ttl=queue_module.KEEP_FAILED_S,
                pipeline=pipeline,
            )
            assert job.enqueued_at is not None
            pipeline.zadd(self.job_history_key, {job.id: job.enqueued_at.timestamp()})
            pipeline.zremrangebyrank(self.job_history_key, 0, -(KEPT_RUNS + 1))
            pipeline.expire(self.job_history_key, max(keep_s, queue_module.KEEP_FAILED_S))
            pipeline.execute()
        return job


class Clock(CronScheduler):
    """RQ's scheduler with the jobs of `SCHEDULE`."""

    def __init__(self, connection: Redis) -> None:
        super().__init__(connection=connection, name="clock")
        self._scheduled = [
            ScheduledJob(queue_module.QUEUE, func=entry.job, interval=entry.every_s, job_timeout=entry.timeout_s)
            for entry in SCHEDULE
        ]
        self._cron_jobs = list(self._scheduled)

    def enqueue_jobs(self) -> list[CronJob]:
        """Enqueue the jobs that are due and return them; one that could not be enqueued stays due."""
        return self._despite_redis(super().enqueue_jobs) or []

    # RQ's scheduler records itself in Redis, for inspection only: an unreachable Redis must not end the clock.

    def register_birth(self) -> None:
        self._despite_redis(super().register_birth)

    def save(self, pipeline: Pipeline | None = None) -> None:
        self._despite_redis(lambda: super(Clock, self).save(pipeline))

    def heartbeat(self) -> None:
        self._despite_redis(super().heartbeat)
        self._despite_redis(lambda: heartbeats.beat(self.connection, "clock"))

    def register_death(self, pipeline: Pipeline | None = None) -> None:
        self._despite_redis(lambda: super(Clock, self).register_death(pipeline))

    def calculate_sleep_interval(self) -> float:
        """Seconds until the next check: at most the interval of heartbeats, at least one while Redis is unreachable."""
        left = min(job.due for job in self._scheduled) - time.monotonic()
        return min(max(1.0, left), heartbeats.EVERY_S)

    def _despite_redis(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except (RedisError, SchedulerNotFound) as error:
            log.warning("the clock could not reach Redis", error=str(error))
            return None


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = process.start("clock")
    Clock(queue_module.connect(config.redis_url)).start()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
