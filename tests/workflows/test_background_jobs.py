"""Background jobs as RQ keeps them: what waits, runs, failed and comes next, and what is done about failures."""

from __future__ import annotations

import pytest
import redis
from flask import Flask
from rq import SimpleWorker, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from app import queue as queue_module
from app.domain import audit
from app.domain.errors import Conflict, NotFound
from app.extensions import db, transaction
from app.jobs.clock import Clock
from app.workflows import background_jobs
from config import Config
from tests.house import People, app, config, database_url, home, inside, migrated, people, quick_hashes, valkey_url  # noqa: F401
from tests.jobs.conftest import wire  # noqa: F401


@pytest.fixture
def connection(inside: Flask, wire: redis.Redis, config: Config) -> redis.Redis:  # noqa: F811
    wire.flushdb()
    return queue_module.connect(config.redis_url)


def work(connection: redis.Redis) -> None:
    """Runs all that waits, in this process."""
    box = queue_module.queue(connection)
    SimpleWorker([box], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="CRITICAL")


def fail(connection: redis.Redis, *arguments: object, name: str = "json.loads") -> str:
    """The id of a job that failed."""
    job = queue_module.queue(connection).enqueue(name, args=arguments, failure_ttl=queue_module.KEEP_FAILED_S)
    work(connection)
    return str(job.id)


def test_an_idle_portico_has_nothing_to_tell(connection: redis.Redis) -> None:
    board = background_jobs.board(1, 20)
    assert board.lengths == ("portico", 0, 0, 0, 0, None)
    assert (board.workers, board.periodic, board.failed) == ([], None, [])


def test_the_schedule_tells_its_last_and_next_runs(connection: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.jobs import rollups

    clock = Clock(connection)
    clock.register_birth()
    assert background_jobs.board(1, 20).periodic == [
        ("rollups", 60, None, None), ("quotas", 60, None, None),
        ("encryption", 300, None, None), ("litellm", 60, None, None), ("provider_lists", 60, None, None),
        ("backups", 60, None, None), ("watch", 60, None, None),
    ]  # fmt: skip
    clock.enqueue_jobs()
    clock.save()
    board = background_jobs.board(1, 20)
    assert (board.lengths.waiting, board.lengths.oldest_at is not None) == (7, True)
    monkeypatch.setattr(rollups, "run", _breaks)
    work(connection)
    found = {job.name: job for job in background_jobs.board(1, 20).periodic or ()}
    assert {name: job.last and job.last.outcome for name, job in found.items()} == {
        "rollups": "failed", "quotas": "ok", "encryption": "ok", "litellm": "ok",
        "provider_lists": "ok", "backups": "ok", "watch": "ok",
    }  # fmt: skip
    assert found["rollups"].last is not None
    assert found["rollups"].last.error == "RuntimeError: with sk-***"
    assert found["quotas"].last is not None
    assert found["quotas"].last.seconds is not None
    assert all(job.next_at is not None for job in found.values())


def _breaks() -> None:
    raise RuntimeError("with sk-abcdefgh1234")


def test_a_worker_tells_what_it_runs(connection: redis.Redis) -> None:
    worker = Worker([queue_module.queue(connection)], connection=connection, serializer=JSONSerializer)
    worker.register_birth()
    job = queue_module.queue(connection).enqueue("app.jobs.deliveries.send", args=("x",))
    worker.set_state("busy")
    worker.set_current_job_id(job.id)
    [found] = background_jobs.board(1, 20).workers
    assert (found.state, found.job, found.pid) == ("busy", "deliveries.send", worker.pid)
    assert found.seen_at is not None


def test_a_failed_job_shows_its_trace_without_secrets(connection: redis.Redis) -> None:
    id = fail(connection, "sk-abcdefgh1234")
    fail(connection, "x" * 999)
    board = background_jobs.board(1, 20)
    assert board.lengths.failed == 2
    found = {job.id: job for job in board.failed}
    job = found.pop(id)
    assert (job.name, job.arguments) == ("json.loads", '"sk-***"')
    assert job.error.startswith("json.decoder.JSONDecodeError")
    assert job.trace.startswith("Traceback")
    assert "abcdefgh" not in repr(board)
    assert [len(other.arguments) for other in found.values()] == [201]
    assert {background_jobs.board(page, 1).failed[0].id for page in (1, 2)} == {id, *found}


def test_a_failed_job_is_retried_or_removed_once_and_both_are_audited(
    connection: redis.Redis,
    people: People,  # noqa: F811
) -> None:
    first, second = fail(connection, "x"), fail(connection, "y")
    assert transaction(background_jobs.retry, first, by=people.admin) == "json.loads"
    assert queue_module.queue(connection).get_job_ids() == [first]
    with pytest.raises(Conflict):
        transaction(background_jobs.retry, first, by=people.admin)
    transaction(background_jobs.remove, second, by=people.admin)
    assert not Job.exists(second, connection=connection)
    for act in (background_jobs.retry, background_jobs.remove):
        with pytest.raises(NotFound):
            transaction(act, second, by=people.admin)
    entries = db.session.scalars(audit.entries(action="job.*")).all()
    assert [(one.action, one.object_id, one.actor) for one in entries] == [
        ("job.remove", second, "admin"), ("job.retry", first, "admin"),
    ]  # fmt: skip


def test_a_job_of_another_format_is_listed_too(connection: redis.Redis) -> None:
    id = fail(connection, "x")
    connection.hset(f"rq:job:{id}", "data", b"\x80\x05not ours")
    [job] = background_jobs.board(1, 20).failed
    assert (job.id, job.name, job.arguments) == (id, "unreadable", "unreadable")
