"""The noticeboard's own judgement of time."""

from __future__ import annotations

import pytest

from app.directory import CallerRecord


@pytest.mark.parametrize(("now_ms", "callable_now"), [(999, ["a", "b"]), (1000, ["b"]), (2**53, ["b"])])
def test_a_model_may_be_called_until_its_end_and_no_longer(
    now_ms: int, callable_now: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.clock.now_ns", lambda: now_ms * 1_000_000)
    record = CallerRecord(
        id="k", kind="key", name="k", person_id="p", username="ada", models={"b": "1", "a": "2"}, ends_ms={"a": 1000}
    )
    assert record.callable_models() == callable_now
    assert record.may_call("a") is ("a" in callable_now)
    assert not record.may_call("c")
