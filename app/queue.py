"""The queue of background jobs: RQ jobs in JSON.

Jobs are enqueued after the unit of work that asked for them has committed, so that no job runs on something that was
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from redis import Redis, RedisError
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq import Queue
from rq import Retry as JobRetry
from rq.serializers import JSONSerializer
from sqlalchemy import event

from app import current, store
from app.extensions import after_commit, db

QUEUE = "portico"
JOB_TIMEOUT_S = 300
KEEP_FAILED_S = 7 * 24 * 3600
PATIENCE_S = 5.0  # how long a page waits for Redis
RETRIES_S = [10, 60, 300]

_WAITING = "portico_jobs"  # in the session's info

log = structlog.get_logger(__name__)


def connect(url: str, *, patience_s: float | None = None) -> Redis:
    """A Redis client as RQ needs it: bytes in and out. With `patience_s` it waits no longer for an answer, and retries once
    quickly, as a page needs it."""
    if patience_s is None:
        return store.connect_pool(url, legacy_responses=False)
    return store.connect_pool(
        url,
        legacy_responses=False,
        socket_timeout=patience_s,
        socket_connect_timeout=patience_s,
        retry=Retry(ConstantBackoff(0.05), 1),
    )


def queue(connection: Redis) -> Queue:
    """Portico's one queue, which the worker serves."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer, default_timeout=JOB_TIMEOUT_S)


def enqueue_after_commit(job: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> None:
    """Enqueue `job` after the current unit of work has committed; a rollback discards it.

    Rooms below the jobs name them by text, `app.jobs.<module>.<function>`. Arguments must be JSON. A job that fails is
    retried three times.
    """
    name = job if isinstance(job, str) else f"{job.__module__}.{job.__qualname__}"
    db.session.info.setdefault(_WAITING, []).append((name, args, kwargs))


@after_commit
def _enqueue() -> None:
    waiting = db.session.info.pop(_WAITING, [])
    if not waiting:
        return
    try:
        with connect(current.config().redis_url) as connection:
            jobs = queue(connection)
            for name, args, kwargs in waiting:
                jobs.enqueue(
                    name,
                    args=args,
                    kwargs=kwargs,
                    result_ttl=0,
                    failure_ttl=KEEP_FAILED_S,
                    retry=JobRetry(max=len(RETRIES_S), interval=RETRIES_S),
                )
    except RedisError as error:
        # What was committed stands; the person must not see an error.
        log.error("jobs were lost", jobs=[name for name, _, _ in waiting], error=str(error))


@event.listens_for(db.session, "after_rollback")
def _discard(session: Any) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_WAITING, None)
