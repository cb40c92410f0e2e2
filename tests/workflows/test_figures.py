"""Figures of the deployment on `/metrics`: what runs, what waits and what there is."""

from __future__ import annotations

import json

import redis
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.runtime import heartbeats
from tests.things import Things, things  # noqa: F401

Samples = dict[tuple[str, str], float]


def told(app: Flask) -> Samples:
    text = app.test_client().get("/metrics").get_data(as_text=True)
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("portico_")
    }


def test_parts_things_and_providers_are_told(app: Flask, things: Things, wire: redis.Redis) -> None:
    heartbeats.beat(wire, "drainer")
    found = told(app)
    assert found["portico_up", "database"] == found["portico_up", "redis"] == found["portico_up", "drainer"] == 1
    assert found["portico_up", "clock"] == 0
    assert found["portico_usage_waiting", ""] >= 0
    assert found["portico_things", "model,active"] >= 2
    assert found["portico_things", "subscription,pending"] >= 1
    assert found["portico_things", "key,live"] >= 1
    assert any(name == "portico_provider_up" for name, _ in found)
    assert found["portico_disk_free_bytes", ""] > 0


def test_whoever_accepts_json_gets_the_summary(app: Flask, things: Things) -> None:
    answer = app.test_client().get("/metrics?start=2026-01-01T00:00:00Z", headers={"Accept": "application/json"})
    assert set(json.loads(answer.data)) == {"requests", "model_distribution", "origin_distribution"}
    assert app.test_client().get("/metrics?start=x", headers={"Accept": "application/json"}).status_code == 422
    assert app.test_client().get("/metrics", headers={"Accept": "*/*"}).mimetype == "text/plain"
    away = app.test_client().get(
        "/metrics", headers={"Accept": "application/json"}, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}
    )
    assert away.status_code == 403
