"""The queue: jobs are enqueued after commit, and never without one."""

from __future__ import annotations

import pytest
import redis
from flask import Flask
from rq.serializers import JSONSerializer
from sqlalchemy.exc import OperationalError

from app import queue as queue_module
from app.extensions import db, transaction
from app.jobs import rollups
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, valkey_url  # noqa: F401
from tests.jobs.conftest import ledger, wire  # noqa: F401


def waiting(ledger: Flask) -> list[str]:
    box = queue_module.queue(queue_module.connect(ledger.config["PORTICO"].redis_url))
    return [job.func_name for job in box.jobs]


@pytest.mark.both_databases
def test_a_job_is_enqueued_once_after_commit(ledger: Flask) -> None:
    def work() -> None:
        queue_module.enqueue_after_commit(rollups.run)
        assert waiting(ledger) == []

    transaction(work)
    assert waiting(ledger) == ["app.jobs.rollups.run"]
    transaction(lambda: None)
    assert waiting(ledger) == ["app.jobs.rollups.run"]


@pytest.mark.both_databases
def test_a_rolled_back_unit_of_work_enqueues_nothing(ledger: Flask) -> None:
    def work() -> None:
        queue_module.enqueue_after_commit(rollups.run)
        raise LookupError

    with pytest.raises(LookupError):
        transaction(work)
    transaction(lambda: None)
    assert waiting(ledger) == []


def test_a_unit_of_work_that_is_run_again_enqueues_once(ledger: Flask) -> None:
    runs = []

    def work() -> None:
        runs.append(1)
        queue_module.enqueue_after_commit(rollups.run)
        if len(runs) < 3:
            raise OperationalError("BEGIN", None, Exception("the database is locked"))

    transaction(work)
    assert (len(runs), waiting(ledger)) == (3, ["app.jobs.rollups.run"])


@pytest.mark.both_databases
def test_the_end_of_a_savepoint_enqueues_nothing(ledger: Flask) -> None:
    def work() -> None:
        with db.session.begin_nested():
            queue_module.enqueue_after_commit(rollups.run)
        assert waiting(ledger) == []

    transaction(work)
    assert waiting(ledger) == ["app.jobs.rollups.run"]


def test_jobs_are_written_in_json(ledger: Flask) -> None:
    transaction(queue_module.enqueue_after_commit, rollups.run, 1, word="x")
    (job,) = queue_module.queue(queue_module.connect(ledger.config["PORTICO"].redis_url)).jobs
    assert (list(job.args), job.kwargs) == ([1], {"word": "x"})
    assert job.serializer is JSONSerializer


def test_a_commit_stands_when_redis_is_away(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def away(_: str) -> redis.Redis:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(queue_module, "connect", away)
    monkeypatch.setattr(queue_module.log, "error", lambda message, **more: lost.extend(more["jobs"]))
    done = []

    def work() -> None:
        queue_module.enqueue_after_commit(rollups.run)
        done.append(1)

    transaction(work)
    assert (done, lost) == ([1], ["app.jobs.rollups.run"])
