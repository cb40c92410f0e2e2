"""The queue: jobs are enqueued after commit, never without one, and the worker and the clock really run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import redis
import rq.cron
from flask import Flask
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from app import queue as queue_module
from app import store
from app.domain import audit
from app.extensions import db, transaction
from app.jobs import rollups, schedule
from app.jobs.clock import Clock
from app.ledger import posting
from app.runtime import heartbeats
from config import load
from tests.house import app, config, database_url, home, inside, migrated, quick_hashes, valkey_url  # noqa: F401
from tests.jobs.conftest import ledger, wire  # noqa: F401
from tests.ledger.books import now_event
from tests.services.valkey import running_valkey
from tests.services.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[1]


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


def test_the_clock_puts_each_job_in_once_a_minute(redis_url: str, wire: redis.Redis) -> None:
    connection = queue_module.connect(redis_url)
    clock = Clock(connection)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)
    assert clock.enqueue_jobs() == []
    jobs = queue_module.queue(connection).jobs
    assert {job.func_name for job in jobs} == {"app.jobs.rollups.run", "app.jobs.quotas.run"}
    assert all(0 < wire.ttl(f"rq:job:{job.id}") <= 60 or job.ttl == 60 for job in jobs)


def test_the_clock_goes_by_a_timer_and_not_by_a_clock_that_may_be_wrong(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(queue_module.connect(redis_url))
    right = rq.cron.now
    monkeypatch.setattr(rq.cron, "now", lambda: right() + timedelta(hours=1))
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)
    monkeypatch.setattr(rq.cron, "now", right)
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)


def test_the_clock_tells_of_itself_at_each_look(redis_url: str, wire: redis.Redis) -> None:
    clock = Clock(queue_module.connect(redis_url))
    clock.register_birth()
    clock.enqueue_jobs()
    assert clock.calculate_sleep_interval() <= heartbeats.EVERY_S
    clock.heartbeat()
    assert "clock" not in heartbeats.missing(wire)


def children(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children()


@pytest.fixture
def worker(inside: Flask, home: Path, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
        "CONFIG_STORAGE_DATA_DIR": str(home),
        "CONFIG_REDIS_URL": redis_url,
    }
    started = subprocess.Popen([sys.executable, "-m", "app.jobs.worker"], env=environ, cwd=ROOT)
    yield started
    started.kill()
    started.wait()


@pytest.mark.slow
def test_a_worker_tells_of_itself_and_begins_its_scheduler_again(
    worker: subprocess.Popen[bytes], wire: redis.Redis
) -> None:
    until(lambda: "worker" not in heartbeats.missing(wire) and children(worker))
    [scheduler] = children(worker)
    scheduler.kill()
    wire.delete("rq:scheduler-lock:portico")  # which ends by itself after a minute
    until(lambda: children(worker) not in ([], [scheduler]))


@pytest.mark.slow
def test_what_a_killed_worker_has_forked_dies_with_it(
    worker: subprocess.Popen[bytes], redis_url: str, wire: redis.Redis
) -> None:
    """Its scheduler, and the child that runs a job."""
    queue_module.queue(queue_module.connect(redis_url)).enqueue("time.sleep", 600)
    until(lambda: len(children(worker)) == 2)
    forked = children(worker)
    worker.kill()
    assert psutil.wait_procs(forked, timeout=PATIENCE_S)[1] == []


def test_the_clock_goes_on_while_redis_is_away(home: Path, wire: redis.Redis, redis_url: str) -> None:
    clock = Clock(queue_module.connect(f"unix://{home}/nowhere.sock?db=0"))
    clock.register_birth()
    assert clock.enqueue_jobs() == []
    clock.save()
    clock.heartbeat()
    assert clock.calculate_sleep_interval() >= 1
    clock.register_death()
    clock.connection = queue_module.connect(redis_url)
    assert len(clock.enqueue_jobs()) == len(schedule.SCHEDULE)


@pytest.mark.slow
def test_the_worker_goes_on_after_redis_was_restarted(inside: Flask, home: Path) -> None:
    with running_valkey() as server:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_REDIS_URL": server.url,
        }
        worker = subprocess.Popen([sys.executable, "-m", "app.jobs.worker"], env=environ, cwd=ROOT)
        try:
            for _ in range(2):
                wire = store.connect(server.url)
                queue_module.queue(queue_module.connect(server.url)).enqueue(rollups.run, result_ttl=0)
                until(lambda wire=wire: wire.exists(store.ROLLUPS_STATUS))
                assert worker.poll() is None
                wire.delete(store.ROLLUPS_STATUS)
                server.kill()
                time.sleep(1)
                server.start()
        finally:
            worker.kill()
            worker.wait()


def test_scheduled_jobs_run_and_tell_what_they_found(
    inside: Flask,
    valkey_url: str,
) -> None:
    posting.post([now_event()])
    connection = queue_module.connect(valkey_url)
    Clock(connection).enqueue_jobs()
    box = queue_module.queue(connection)
    SimpleWorker([box], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="ERROR")
    assert box.failed_job_registry.get_job_ids() == []
    wire = store.connect(valkey_url)
    found = wire.hgetall(store.ROLLUPS_STATUS)
    assert (found["derived"], found["differences"]) == ("1", "0")
    found = wire.hgetall(store.QUOTAS_STATUS)
    assert (found["compared"], found["drifting"]) == ("3", "3")  # Redis was never charged


@pytest.mark.slow
def test_worker_and_clock_run_as_processes(inside: Flask, valkey_url: str, home: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
        "CONFIG_STORAGE_DATA_DIR": str(home),
        "CONFIG_REDIS_URL": valkey_url,
    }
    wire = store.connect(valkey_url)
    wire.delete(store.ROLLUPS_STATUS, store.QUOTAS_STATUS)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"app.jobs.{name}"], env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for name in ("worker", "clock")
    ]
    try:
        until(lambda: wire.exists(store.ROLLUPS_STATUS) and wire.exists(store.QUOTAS_STATUS))
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, output
            assert all(line.startswith("{") for line in output.splitlines()), output
    finally:
        for process in processes:
            process.kill()
            process.wait()
