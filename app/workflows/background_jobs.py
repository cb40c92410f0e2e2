"""Background jobs as RQ keeps them in Redis: the queue, the workers, the periodic jobs with their last runs, and failed
jobs, which can be retried or removed.

Everything here raises `redis.RedisError` while Redis is away. Texts of jobs are masked, as in the logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
from redis import Redis
from rq import Queue, Worker
from rq.cron import CronScheduler, get_cron_job_ids
from rq.exceptions import DeserializationError, InvalidJobOperation, NoSuchJobError, SchedulerNotFound
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from app import current
from app import queue as queue_module
from app.domain import audit
from app.domain.errors import Conflict, NotFound
from app.domain.person import Person
from app.runtime.logs import masked

CLOCK = "clock"  # the name under which `app.jobs.clock` records its schedule
LONGEST_ARGUMENTS = 200  # characters

Outcome = Literal["ok", "failed", "running"]


class Lengths(NamedTuple):
    """How many jobs the queue has, by state, and since when the oldest one waits."""

    name: str
    waiting: int
    running: int
    delayed: int
    failed: int
    oldest_at: datetime | None


class WorkerState(NamedTuple):
    """A worker that sent a heartbeat recently. `job` is the one that it runs, if any."""

    host: str
    pid: int
    state: str
    since: datetime | None
    seen_at: datetime | None
    job: str | None
    succeeded: int
    failed: int


class Run(NamedTuple):
    """One run of a job. `error` is the last line of its trace."""

    at: datetime | None
    outcome: Outcome
    seconds: float | None
    error: str | None


class Periodic(NamedTuple):
    """A job of the schedule with its interval in seconds. `last` is its newest run that began, if it is still known."""

    name: str
    every_s: int
    next_at: datetime | None
    last: Run | None


class Failed(NamedTuple):
    """A job that failed after all retries. `arguments` and `trace` are masked and bounded."""

    id: str
    name: str
    arguments: str
    at: datetime | None
    error: str
    trace: str


class Board(NamedTuple):
    """All of it. `periodic` is None while no clock runs, since it is the clock that records the schedule."""

    lengths: Lengths
    workers: list[WorkerState]
    periodic: list[Periodic] | None
    failed: list[Failed]


def board(page: int, size: int) -> Board:
    """Returns the present state, with one page of the failed jobs, the newest first."""
    with _queue() as queue:
        return Board(_lengths(queue), _workers(queue), _periodic(queue.connection), _failed(queue, page, size))


def retry(id: str, *, by: Person) -> str:
    """Put a failed job into the queue again and return its name. Raises `NotFound`, or `Conflict` if it did not fail."""
    with _queue() as queue:
        registry, job = _failed_job(queue, id)
        audit.record(by, "job.retry", "job", id, name=_name_of(job))
        try:
            registry.requeue(job)
        except InvalidJobOperation:
            raise Conflict("This job was retried or removed in the meantime.") from None
        return _name_of(job)


def remove(id: str, *, by: Person) -> str:
    """Delete a failed job with its trace and return its name. Raises `NotFound`, or `Conflict` if it did not fail."""
    with _queue() as queue:
        registry, job = _failed_job(queue, id)
        audit.record(by, "job.remove", "job", id, name=_name_of(job), before={"error": _last_line(_trace(job))})
        registry.remove(job, delete_job=True)
        return _name_of(job)


@contextmanager
def _queue() -> Iterator[Queue]:
    with queue_module.connect(current.config().redis_url, patience_s=queue_module.PATIENCE_S) as connection:
        yield queue_module.queue(connection)


def _failed_job(queue: Queue, id: str) -> tuple[FailedJobRegistry, Job]:
    registry = queue.failed_job_registry
    try:
        job = Job.fetch(id, connection=queue.connection, serializer=JSONSerializer)
    except NoSuchJobError:
        raise NotFound("This job does not exist.") from None
    if job not in registry:
        raise Conflict("This job was retried or removed in the meantime.")
    return registry, job


def _lengths(queue: Queue) -> Lengths:
    # Cleaning up is the worker's business: it would also run the handlers of abandoned jobs.
    oldest = Job.fetch_many(queue.get_job_ids(0, 1), connection=queue.connection, serializer=JSONSerializer)
    return Lengths(
        name=queue.name,
        waiting=queue.count,
        running=queue.started_job_registry.get_job_count(cleanup=False),
        delayed=queue.scheduled_job_registry.get_job_count(cleanup=False),
        failed=queue.failed_job_registry.get_job_count(cleanup=False),
        oldest_at=next((_utc(job.enqueued_at) for job in oldest if job), None),
    )


def _workers(queue: Queue) -> list[WorkerState]:
    workers = Worker.all(queue=queue, serializer=JSONSerializer)
    ids = [id for worker in workers if (id := worker.get_current_job_id())]
    jobs = Job.fetch_many(ids, connection=queue.connection, serializer=JSONSerializer)
    running = {job.id: _name_of(job) for job in jobs if job}
    return [
        WorkerState(
            host=str(worker.hostname or ""),
            pid=int(worker.pid or 0),
            state=str(worker.get_state()),
            since=_utc(worker.birth_date),
            seen_at=_utc(worker.last_heartbeat),
            job=running.get(worker.get_current_job_id() or ""),
            succeeded=worker.successful_job_count,
            failed=worker.failed_job_count,
        )
        for worker in sorted(workers, key=lambda worker: worker.name)
    ]


def _periodic(connection: Redis) -> list[Periodic] | None:
    try:
        jobs = CronScheduler.fetch(CLOCK, connection).get_jobs()
    except SchedulerNotFound:
        return None
    return [
        Periodic(_name(job.func_name), job.interval or 0, _utc(job.next_enqueue_time), _last_run(job.name, connection))
        for job in jobs
    ]


def _last_run(name: str, connection: Redis) -> Run | None:
    jobs = Job.fetch_many(get_cron_job_ids(name, connection), connection=connection, serializer=JSONSerializer)
    job = next((job for job in jobs if job and job.started_at), None)
    if job is None:
        return None
    result = job.latest_result()
    if job.ended_at is None or result is None:
        return Run(_utc(job.started_at), "running", None, None)
    failed = result.type != Result.Type.SUCCESSFUL
    assert job.started_at is not None
    seconds = (job.ended_at - job.started_at).total_seconds()
    return Run(_utc(job.started_at), "failed" if failed else "ok", seconds, _last_line(_trace(job)) if failed else None)


def _failed(queue: Queue, page: int, size: int) -> list[Failed]:
    first = (page - 1) * size
    ids = queue.failed_job_registry.get_job_ids(first, first + size - 1, desc=True, cleanup=False)
    jobs = Job.fetch_many(ids, connection=queue.connection, serializer=JSONSerializer)
    found = []
    for id, job in zip(ids, jobs, strict=True):
        if job is not None:
            trace = _trace(job)
            found.append(Failed(id, _name_of(job), _arguments(job), _utc(job.ended_at), _last_line(trace), trace))
    return found


def _name(function: str) -> str:
    """A job's name for people: `rollups` for `app.jobs.rollups.run`."""
    return str(masked(function.removeprefix("app.jobs.").removesuffix(".run")))


def _name_of(job: Job) -> str:
    try:
        return _name(job.func_name or "unknown")
    except DeserializationError:
        return "unreadable"


def _arguments(job: Job) -> str:
    try:
        given = [*job.args, *([job.kwargs] if job.kwargs else [])]
    except DeserializationError:
        return "unreadable"
    text = ", ".join(msgspec.json.encode(masked(one)).decode() for one in given)
    return text if len(text) <= LONGEST_ARGUMENTS else f"{text[:LONGEST_ARGUMENTS]}…"


def _trace(job: Job) -> str:
    result = job.latest_result()
    return str(masked((result.exc_string if result else None) or "")).strip()


def _last_line(trace: str) -> str:
    return trace.splitlines()[-1] if trace else "No trace was kept."


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at if at.tzinfo else at.replace(tzinfo=UTC)
