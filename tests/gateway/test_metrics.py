"""What is noted of calls is counted once, however often it is told, and only what was used up counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from app.gateway import metrics
from app.gateway.call import Call

PATH = "/v1/of-this-test"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def ended(*, first_byte: float | None = 10.5, end: float | None = 12.0, status: int = 200) -> Call:
    usage = SimpleNamespace(prompt_tokens=3, completion_tokens=4)
    told = {
        "endpoint": PATH,
        "status": status,
        "started": 10.0,
        "first_byte_at": first_byte,
        "ended_at": end,
        "usage": usage,
    }
    return cast(Call, SimpleNamespace(**told))


def counted() -> dict[str, float]:
    metrics.tell()
    return {
        "200": value("portico_requests_total", endpoint=PATH, status="200"),
        "502": value("portico_requests_total", endpoint=PATH, status="502"),
        "in": value("portico_tokens_total", endpoint=PATH, direction="in"),
        "out": value("portico_tokens_total", endpoint=PATH, direction="out"),
        "cost": value("portico_cost_nano_total", endpoint=PATH),
        "seconds": value("portico_request_seconds_sum", endpoint=PATH),
        "first": value("portico_first_byte_seconds_sum", endpoint=PATH),
    }


@pytest.fixture
def more() -> Any:
    """What is counted beyond what was before the test."""
    before = counted()
    return lambda: {name: now - before[name] for name, now in counted().items() if now != before[name]}


def test_a_call_is_counted_once_with_its_times_tokens_and_cost(more: Any) -> None:
    metrics.count_call(ended(), 70)
    expected = {"200": 1, "in": 3, "out": 4, "cost": 70, "seconds": 2.0, "first": 0.5}
    assert more() == expected
    assert more() == expected


def test_a_call_that_gave_nothing_used_nothing(more: Any) -> None:
    metrics.count_call(ended(first_byte=None, status=502), 70)
    assert more() == {"502": 1, "seconds": 2.0}


def test_what_was_refused_before_it_held_anything_is_a_request_alone(more: Any) -> None:
    metrics.count_refusal(PATH, 502)
    metrics.count_refusal(PATH, 502)
    assert more() == {"502": 2}


@pytest.mark.parametrize(
    ("count", "name", "labels"),
    [
        (lambda: metrics.count_denial("model"), "portico_denials_total", {"reason": "model"}),
        (lambda: metrics.count_alarm("late"), "portico_usage_alarms_total", {"reason": "late"}),
        (lambda: metrics.count_attempt("up", True), "portico_upstream_attempts_total", {"provider": "up", "outcome": "failed"}),
        (lambda: metrics.count_attempt("up", False), "portico_upstream_attempts_total", {"provider": "up", "outcome": "ok"}),
    ],
)  # fmt: skip
def test_nothing_is_counted_before_it_is_told(count: Any, name: str, labels: dict[str, str]) -> None:
    metrics.tell()
    before = value(name, **labels)
    count()
    assert value(name, **labels) == before
    metrics.tell()
    assert value(name, **labels) == before + 1


@given(st.lists(st.floats(0, 400) | st.sampled_from([0.01, 0.1, 1.0, 300.0]), max_size=30))
def test_many_values_at_once_count_as_one_by_one(values: list[float]) -> None:
    registry = CollectorRegistry()
    kinds = {"many": metrics.Timing, "single": Histogram}
    made = {name: kind(name, "x", buckets=(0.01, 0.1, 1, 300), registry=registry) for name, kind in kinds.items()}
    cast(metrics.Timing, made["many"]).observe_all(values)
    for one in values:
        made["single"].observe(one)
    for bound in ("0.01", "0.1", "1.0", "300.0", "+Inf"):
        many, single = (registry.get_sample_value(f"{name}_bucket", {"le": bound}) for name in kinds)
        assert many == single
    assert registry.get_sample_value("many_count") == len(values)
