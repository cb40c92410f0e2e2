"""The job `watch`: a look that leaves what it saw for the status page."""

from __future__ import annotations

import redis
from flask import Flask

from app.jobs import watch
from app.workflows.watch import alarms


def test_the_job_leaves_its_readings(inside: Flask, wire: redis.Redis) -> None:
    watch.run()
    assert {"error_percent", "usage_lag_s", "disk_free_percent"} <= {alarm.reading.setting for alarm in alarms(wire)}
