"""The schedule: what the clock puts in, the worker can run."""

from __future__ import annotations

from flask import Flask
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from app import queue as queue_module
from app import store
from app.jobs.clock import Clock
from app.ledger import posting
from tests.ledger.books import now_event


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
