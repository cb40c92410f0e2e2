"""The worker of the Procfile: runs the letterbox's jobs, each in a child process of its own.

It is RQ's worker with its scheduler, so that delayed jobs and retries come back at their time. RQ's worker ends when
Redis goes away under a job; ours then begins anew, for the end of one process ends them all.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from redis import RedisError
from rq import Worker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from app.jobs import letterbox, process

PAUSE_S = 1.0

log = structlog.get_logger("app.jobs.worker")  # run as a script, the module has another name


class PatientWorker(Worker):
    """RQ's worker, which tells whether it was asked to end."""

    asked_to_end = False

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
            worker = PatientWorker([letterbox.queue(connection)], connection=connection, serializer=JSONSerializer)
            worker.work(with_scheduler=True)
        except RedisError as error:
            log.error("Redis does not answer", reason=str(error))
        except StopRequested:
            return
        if not PatientWorker.asked_to_end:
            log.warning("the worker begins anew")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
