"""The worker of the Procfile: runs queued jobs, each in a child process of its own.

It is RQ's worker with its scheduler, so that delayed jobs and retries run on time. RQ's worker ends when Redis becomes
unreachable during a job; ours then starts again.
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

from app import queue as queue_module
from app.jobs import process
from app.runtime import heartbeats

PAUSE_S = 1.0
WAIT_S = int(heartbeats.EVERY_S)

log = structlog.get_logger("app.jobs.worker")  # run as a script, the module has another name


class PatientWorker(Worker):
    """RQ's worker, which also knows whether it was asked to end, sends heartbeats and keeps its scheduler alive."""

    asked_to_end = False

    def __init__(self, connection: Redis) -> None:
        super().__init__(
            [queue_module.queue(connection)],
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WAIT_S + 15,  # from which RQ derives how long it waits for a job between two heartbeats
            job_monitoring_interval=WAIT_S,
        )

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Called in RQ's loop, while it waits for a job and while one runs."""
        super().heartbeat(timeout, pipeline)
        heartbeats.beat(self.connection, "worker")
        self._keep_scheduler()

    def _keep_scheduler(self) -> None:
        """Restart a dead scheduler: RQ itself checks every ten minutes. A killed scheduler's lock lasts up to a minute."""
        scheduler: Any = self.scheduler
        if self.is_horse or scheduler is None or PatientWorker.asked_to_end:
            return
        if scheduler._process is None or not scheduler._process.is_alive():
            scheduler.acquire_locks(auto_start=True)

    def request_stop(self, signum: Any, frame: Any) -> None:
        PatientWorker.asked_to_end = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def main() -> None:
    """Run until SIGTERM or SIGINT; a running job finishes first."""
    config = process.start("worker")
    process.application()  # before the first fork, so that each job starts immediately
    connection = queue_module.connect(config.redis_url)
    while not PatientWorker.asked_to_end:
        try:
            PatientWorker(connection).work(with_scheduler=True)
        except RedisError as error:
            log.error("Redis does not answer", reason=str(error))
        except StopRequested:
            return
        if not PatientWorker.asked_to_end:
            log.warning("the worker restarts")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
