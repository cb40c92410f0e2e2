"""The letterbox: work for later, as RQ jobs in JSON.

Letters are put in during a unit of work and leave when it has committed, so that no job ever runs on something that
was rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from redis import Redis, RedisError
from rq import Queue, Retry
from rq.serializers import JSONSerializer
from sqlalchemy import event
from sqlalchemy.orm import Session

QUEUE = "portico"
JOB_TIMEOUT_S = 300
KEEP_FAILED_S = 7 * 24 * 3600
RETRIES_S = [10, 60, 300]

_LETTERS = "portico_letters"

log = structlog.get_logger(__name__)


def connect(url: str) -> Redis:
    """A client as RQ wants it: bytes in and out."""
    return Redis.from_url(url, legacy_responses=False)


def queue(connection: Redis) -> Queue:
    """The queue that the worker serves."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer, default_timeout=JOB_TIMEOUT_S)


def put_later(job: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> None:
    """Put a letter in the box: `job` runs in the worker once the present transaction has committed.

    The domain names its jobs by text, `app.jobs.<module>.<function>`, because they stand above it. Arguments must be
    JSON. Rolled back, the letter is thrown away. A job that fails is tried three times more.
    """
    from app.extensions import db

    session = db.session()
    name = job if isinstance(job, str) else f"{job.__module__}.{job.__qualname__}"
    session.info.setdefault(_LETTERS, []).append((name, args, kwargs))
    if not event.contains(session, "after_commit", _send):
        event.listen(session, "after_commit", _send)
        event.listen(session, "after_rollback", _discard)


def _send(session: Session) -> None:
    if session.in_nested_transaction():
        return  # a savepoint: nothing is final yet
    letters = session.info.pop(_LETTERS, [])
    if not letters:
        return
    from app import current

    try:
        with connect(current.config().redis_url) as connection:
            box = queue(connection)
            for name, args, kwargs in letters:
                box.enqueue(
                    name,
                    args=args,
                    kwargs=kwargs,
                    result_ttl=0,
                    failure_ttl=KEEP_FAILED_S,
                    retry=Retry(max=len(RETRIES_S), interval=RETRIES_S),
                )
    except RedisError as error:
        # What was committed stands; the person must not be told otherwise.
        log.error("letters were lost", letters=[letter[0] for letter in letters], error=str(error))


def _discard(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info.pop(_LETTERS, None)
