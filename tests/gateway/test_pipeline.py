"""One attempt at one deployment: what came of it is kept, whoever leaves meanwhile."""

from __future__ import annotations

from typing import Any, cast

import gevent
import pytest

from app.directory import CallerRecord, DatedPrice, Model, Price
from app.gateway import pipeline
from app.gateway.call import Call, Interrupted
from app.gateway.routing import Candidate
from app.metering.pricing import Bound
from app.providers import tokens
from app.providers.base import Demand
from app.providers.http import Answer
from app.providers.openai import OpenAIExchange

PRICE = Price(id="price", input_per_mtok=1_000_000, output_per_mtok=1_000_000)
WITHOUT_USAGE = b'{"choices": [{"index": 0, "message": {"content": "one two"}, "finish_reason": "stop"}]}'


@pytest.fixture
def call() -> Call:
    model = Model(id="m", name="small", capabilities=("chat",), created=1, prices=(DatedPrice(from_ms=0, price=PRICE),))
    caller = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})
    demand = Demand(capability="chat", model="small", members={"messages": b'[{"content": "three"}]'}, parsed=None)
    made = Call("r", "/v1/chat/completions", "chat", caller, model, demand, Bound(100, 100), None, None)
    made.price = PRICE
    return made


class Upstream:
    """An adapter whose upstream answers without usage, `leave` being called while the answer is on its way."""

    def __init__(self, leave: Any = lambda: None) -> None:
        self._leave = leave

    def open(self, demand: Demand, deployment: Any) -> OpenAIExchange:
        return OpenAIExchange(cast("Answer", self), demand, None, 60.0)

    def read_object(self, grace_s: float) -> bytes:
        self._leave()
        gevent.sleep(0.01)
        return WITHOUT_USAGE

    def close(self) -> None:
        """There is no connection."""


def attempt(call: Call, upstream: Upstream) -> bytes:
    _, first = pipeline._attempt(call, Candidate(cast("Any", None), cast("Any", None), cast("Any", upstream)))
    return first


@pytest.mark.parametrize("reason", ["gone", "stopping", "fenced"])
def test_a_whole_answer_is_billed_whoever_leaves_while_its_tokens_are_counted(call, monkeypatch, reason) -> None:
    counted = tokens.apart

    def apart(work: Any) -> Any:
        call.interrupt(reason)
        gevent.sleep(0.01)
        return counted(work)

    monkeypatch.setattr(tokens, "apart", apart)
    assert b'"completion_tokens":2' in attempt(call, Upstream())
    assert (call.tokens, call.cost_nano) == (3, 3)


def test_an_answer_that_has_not_come_is_given_up_when_its_client_leaves(call) -> None:
    with pytest.raises(Interrupted):
        attempt(call, Upstream(lambda: call.interrupt("gone")))
    assert call.cost_nano == 0
