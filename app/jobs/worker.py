"""The worker of the Procfile: runs the letterbox's jobs, each in a child process of its own.

It is RQ's worker with its scheduler, so that delayed jobs and retries come back at their time. RQ's worker ends when
Redis goes away under a job; ours then begins anew.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from redis import Redis, RedisError
from redis.client import Pipeline
from rq import Worker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from app import heartbeats
from app.jobs import letterbox, process

PAUSE_S = 1.0
WAIT_S = int(heartbeats.EVERY_S)

log = structlog.get_logger("app.jobs.worker")  # run as a script, the module has another name


class PatientWorker(Worker):
    """RQ's worker, which tells whether it was asked to end, and that it runs, and which keeps its scheduler alive."""

    asked_to_end = False

    def __init__(self, connection: Redis) -> None:
        super().__init__(
            [letterbox.queue(connection)],
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WAIT_S + 15,  # from which RQ derives how long it waits for a job between two heartbeats
            job_monitoring_interval=WAIT_S,
        )

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """RQ calls this in its loop, whether it waits for a job or for the end of one."""
        super().heartbeat(timeout, pipeline)
        heartbeats.beat(self.connection, "worker")
        self._keep_scheduler()

    def _keep_scheduler(self) -> None:
        """RQ looks every ten minutes. Its lock may be that of a scheduler that was killed, for a minute more."""
        scheduler: Any = self.scheduler
        if self.is_horse or scheduler is None or PatientWorker.asked_to_end:
            return
        if scheduler._process is None or not scheduler._process.is_alive():
            scheduler.acquire_locks(auto_start=True)

    def request_stop(self, signum: Any, frame: Any) -> None:
        PatientWorker.asked_to_end = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def main() -> None:
    """Run until SIGTERM or SIGINT; the job under way is finished first."""
    config = process.start("worker")
    process.application()  # made before the first fork, so that each job starts at once
    connection = letterbox.connect(config.redis_url)
    while not PatientWorker.asked_to_end:
        try:
            PatientWorker(connection).work(with_scheduler=True)
        except RedisError as error:
            log.error("Redis does not answer", reason=str(error))
        except StopRequested:
            return
        if not PatientWorker.asked_to_end:
            log.warning("the worker begins anew")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
