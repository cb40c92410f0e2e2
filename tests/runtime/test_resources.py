"""What processes use and the host has left, as Prometheus reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.runtime import resources
from app.runtime.resources import Resources


def told(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Resources(folder))
    text = generate_latest(registry).decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_processes_host_and_disk_are_told(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert found["portico_web_resident_bytes"] > 10 << 20
    assert found["portico_web_open_files"] > 3
    assert found["portico_web_workers"] >= 1
    assert 0 < found["portico_host_memory_free_bytes"] < found["portico_host_memory_bytes"]
    assert 0 < found["portico_disk_free_bytes"] <= found["portico_disk_size_bytes"]


def test_processor_time_never_falls(tmp_path: Path) -> None:
    before = told(tmp_path)["portico_web_cpu_seconds_total"]
    sum(number * number for number in range(200_000))
    assert told(tmp_path)["portico_web_cpu_seconds_total"] >= before > 0


def test_without_proc_the_disk_is_told_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PROC", tmp_path / "none")
    assert set(told(tmp_path)) == {"portico_disk_free_bytes", "portico_disk_size_bytes"}
