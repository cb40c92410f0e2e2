"""The worker of the Procfile: runs the letterbox's jobs, each in a child process of its own.

It is RQ's worker with its scheduler, so that delayed jobs and retries come back at their time.
"""

from __future__ import annotations

from rq import Worker
from rq.serializers import JSONSerializer

from app.jobs import letterbox, process


def main() -> None:
    """Run until SIGTERM or SIGINT; the job under way is finished first."""
    config = process.start("worker")
    process.application()  # made before the first fork, so that each job starts at once
    connection = letterbox.connect(config.redis_url)
    Worker([letterbox.queue(connection)], connection=connection, serializer=JSONSerializer).work(with_scheduler=True)


if __name__ == "__main__":
    main()
