"""The noticeboard's own judgement of time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import CallerRecord, DatedPrice, Deployment, Directory, Model, Price, Provider


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


@given(st.lists(st.integers(0, 100), max_size=8).map(sorted), st.integers(0, 100))
def test_the_last_price_whose_instant_has_come_holds(begins: list[int], now_ms: int) -> None:
    prices = tuple(DatedPrice(from_ms=at, price=Price(id=str(place))) for place, at in enumerate(begins))
    model = Model(id="m", name="m", capabilities=("chat",), created=1, prices=prices)
    held = [place for place, at in enumerate(begins) if at <= now_ms]  # its own instant included
    found = model.price_at(now_ms)
    assert (None if found is None else int(found.id)) == (held[-1] if held else None)


@given(st.booleans(), st.none() | st.integers(1, 10**9), st.lists(st.sampled_from(["chat", "speech"]), unique=True))
def test_what_is_published_is_read_as_it_was(active: bool, window: int | None, capabilities: list[Any]) -> None:
    model = Model(
        id="m", name="m", capabilities=tuple(capabilities), created=1, context_window=window,
        deployments=(Deployment(id="d", provider_id="p", upstream_model="x", settings={"a": [1]}),),
    )  # fmt: skip
    told = Directory(version="7", models=(model,), providers=(Provider(id="p", name="P", kind="echo", active=active),))
    assert msgspec.json.decode(msgspec.json.encode(told), type=Directory) == told
