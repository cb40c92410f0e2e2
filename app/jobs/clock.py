"""The clock of the Procfile: puts each job of `app.jobs.schedule` into the letterbox when its time has come.

It is RQ's own cron scheduler, made to write JSON as the worker reads it, and to leave out a job that still waits.
"""

from __future__ import annotations

from redis import Redis, RedisError
from rq.cron import CronJob, CronScheduler
from rq.job import Job

from app.jobs import letterbox, process
from app.jobs.schedule import SCHEDULE


class ScheduledJob(CronJob):
    """One line of the schedule."""

    def enqueue(self, connection: Redis) -> Job:
        """Put the job into the letterbox. It is forgotten if no worker took it before the next one is due."""
        assert self.func is not None
        return letterbox.queue(connection).enqueue(
            self.func, ttl=self.interval, result_ttl=0, failure_ttl=letterbox.KEEP_FAILED_S
        )


class Clock(CronScheduler):
    """RQ's scheduler with the jobs of `SCHEDULE`."""

    def __init__(self, connection: Redis) -> None:
        super().__init__(connection=connection, name="clock")
        self._cron_jobs = [ScheduledJob(letterbox.QUEUE, func=job, interval=every_s) for job, every_s in SCHEDULE]

    def enqueue_jobs(self) -> list[CronJob]:
        """Put what is due into the letterbox; while Redis is away nothing is, and the clock goes on."""
        try:
            return super().enqueue_jobs()
        except RedisError as error:
            self.log.error("jobs could not be put into the letterbox: %s", error)
            return []


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = process.start("clock")
    Clock(letterbox.connect(config.redis_url)).start()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
