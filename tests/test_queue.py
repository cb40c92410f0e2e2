"""The queue: jobs are enqueued after commit, and never without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from rq.serializers import JSONSerializer
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from app import queue as queue_module
from app.domain import audit
from app.extensions import db, transaction
from app.jobs import rollups
from config import load
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


def test_a_commit_stands_when_redis_is_away_and_its_jobs_are_lost_and_named(
    inside: Flask, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = inside.config["PORTICO"]
    away = load({"CONFIG_STORAGE_DATA_DIR": str(home), "CONFIG_REDIS_URL": f"unix://{home}/nowhere.sock?db=0"})
    done = []

    def work() -> None:
        audit.record(None, "test.kept", "test", "1")
        queue_module.enqueue_after_commit(rollups.run)
        queue_module.enqueue_after_commit("app.jobs.quotas.run")
        done.append(1)

    monkeypatch.setitem(inside.config, "PORTICO", away)
    with capture_logs() as told:
        transaction(work)
    monkeypatch.setitem(inside.config, "PORTICO", here)
    assert done == [1]  # not run again: the unit of work has not failed
    assert [entry.action for entry in db.session.scalars(audit.entries(about="test"))] == ["test.kept"]
    [lost] = [line for line in told if line["event"] == "jobs were lost"]
    assert (lost["log_level"], lost["jobs"]) == ("error", ["app.jobs.rollups.run", "app.jobs.quotas.run"])
    transaction(queue_module.enqueue_after_commit, rollups.run)
    assert waiting(inside) == ["app.jobs.rollups.run"]  # of the later unit of work: what was lost does not come back
