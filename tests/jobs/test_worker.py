"""The worker of the Procfile: runs jobs until it is asked to end, outlives its scheduler and a Redis that restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import redis
from flask import Flask
from rq import Worker
from rq.exceptions import StopRequested

from app import queue as queue_module
from app import store
from app.jobs import rollups
from app.jobs import worker as worker_module
from app.jobs.worker import PatientWorker
from app.runtime import heartbeats
from tests.services.valkey import running_valkey
from tests.services.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[2]


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


class _Again(Exception):
    """The worker would begin anew."""


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the main loop does; a pause raises, so that it ends."""
    done: list[str] = []

    def pause(_: float) -> None:
        done.append("paused")
        raise _Again

    monkeypatch.setattr(worker_module.process, "start", lambda name: SimpleNamespace(redis_url="redis://nowhere"))
    monkeypatch.setattr(worker_module.process, "application", lambda: done.append("made"))
    monkeypatch.setattr(worker_module.time, "sleep", pause)
    monkeypatch.setattr(PatientWorker, "__init__", lambda self, connection: None)
    monkeypatch.setattr(PatientWorker, "asked_to_end", False)
    return done


@pytest.mark.parametrize("error", [redis.ConnectionError("away"), None])
def test_a_worker_that_ends_by_itself_begins_anew(
    worked: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def work(self: PatientWorker, **_: object) -> None:
        worked.append("worked")
        if error:
            raise error

    monkeypatch.setattr(PatientWorker, "work", work)
    with pytest.raises(_Again):
        worker_module.main()
    assert worked == ["made", "worked", "paused"]


@pytest.mark.parametrize("stops", [True, False])
def test_a_worker_that_was_asked_to_end_does_not(
    worked: list[str], monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """Whether RQ then raises, as while it waits, or returns, as after a job."""

    def work(self: PatientWorker, **_: object) -> None:
        monkeypatch.setattr(Worker, "request_stop", lambda *_: None)
        self.request_stop(signal.SIGTERM, None)
        if stops:
            raise StopRequested

    monkeypatch.setattr(PatientWorker, "work", work)
    worker_module.main()
    assert worked == ["made"]


def test_each_beat_of_the_worker_is_told_and_looks_after_its_scheduler(redis_url: str, wire: redis.Redis) -> None:
    found = PatientWorker(queue_module.connect(redis_url))
    begun: list[bool] = []
    found.scheduler = SimpleNamespace(_process=None, acquire_locks=lambda auto_start: begun.append(auto_start))
    found.heartbeat()
    assert "worker" not in heartbeats.missing(wire)
    assert begun == [True]
    found.scheduler._process = SimpleNamespace(is_alive=lambda: True)
    found.heartbeat()
    assert begun == [True], "one that lives is left alone"
