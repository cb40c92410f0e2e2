"""One call at its upstream: what came of it is kept, and nothing more is asked for once its client has left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gevent
import pytest

from app.directory import CallerRecord, DatedPrice, Deployment, Model, Price, Provider
from app.gateway import attempts, streaming
from app.gateway.attempts import Delivery
from app.gateway.breakers import Breakers
from app.gateway.call import Call, Interrupted
from app.gateway.dialects import dialect
from app.gateway.routing import Candidate
from app.metering.pricing import TokenBound
from app.providers import tokens
from app.providers.base import Pieces, UpstreamRequest, Usage
from app.providers.echo import EchoSettings
from app.providers.http import Answer
from app.providers.openai import OpenAIExchange

PRICE = Price(id="price", rates={"input_per_mtok": 1_000_000, "output_per_mtok": 1_000_000})
WITHOUT_USAGE = b'{"choices": [{"index": 0, "message": {"content": "one two"}, "finish_reason": "stop"}]}'


@pytest.fixture
def call() -> Call:
    model = Model(id="m", name="small", capabilities=("chat",), created=1, prices=(DatedPrice(from_ms=0, price=PRICE),))
    caller = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})
    request = UpstreamRequest(
        capability="chat",
        dialect="openai_chat",
        model="small",
        members={"messages": b'[{"content": "three"}]'},
        parsed=None,
    )
    made = Call("r", "/v1/chat/completions", caller, model, dialect("openai_chat"), request, TokenBound(100, 100))
    made.price = PRICE
    return made


class Upstream:
    """An adapter whose upstream answers without usage, `leave` being called while the answer is on its way."""

    def __init__(self, leave: Any = lambda: None) -> None:
        self._leave = leave

    def open(self, request: UpstreamRequest, deployment: Any) -> OpenAIExchange:
        return OpenAIExchange(cast("Answer", self), request, None, 60.0)

    def read_object(self, grace_s: float) -> bytes:
        self._leave()
        gevent.sleep(0.01)
        return WITHOUT_USAGE

    def close(self) -> None:
        """There is no connection."""


class Endless:
    """A stream that goes on for as long as it is read."""

    usage, finish_reason, media_type = Usage(completion_tokens=1), None, None

    def __init__(self, meanwhile: Any = lambda: None) -> None:
        self.closed = False
        self._meanwhile = meanwhile

    def events(self) -> Pieces:
        for _ in range(100):
            gevent.sleep(0)
            yield b"data: {}\n\n"
            self._meanwhile()
        raise AssertionError("it was read on and on")

    def conclude(self) -> Usage:
        return self.usage

    def close(self) -> None:
        self.closed = True


def relayed(call: Call, exchange: Endless) -> tuple[Iterator[bytes], list[str]]:
    """A stream on its way, and how it ended once it was settled."""
    outcomes: list[str] = []
    delivery = Delivery(cast("Any", exchange), b"first", exchange.events())
    pieces = streaming.relay(call, delivery, lambda: outcomes.append(call.outcome))
    assert next(pieces) == b"first"
    return pieces, outcomes


def attempt(call: Call, upstream: Upstream) -> bytes:
    return attempts._attempt(call, Candidate(cast("Any", None), cast("Any", None), cast("Any", upstream))).first


@pytest.mark.parametrize("reason", ["gone", "stopping", "fenced"])
def test_a_whole_answer_is_billed_whoever_leaves_while_its_tokens_are_counted(call, monkeypatch, reason) -> None:
    counted = tokens.apart

    def apart(work: Any) -> Any:
        call.interrupt(reason)
        gevent.sleep(0.01)
        return counted(work)

    monkeypatch.setattr(tokens, "apart", apart)
    assert b'"completion_tokens":2' in attempt(call, Upstream())
    assert (call.usage.prompt_tokens + call.usage.completion_tokens, call.cost_nano) == (3, 3)


def test_an_answer_that_has_not_come_is_given_up_when_its_client_leaves(call) -> None:
    with pytest.raises(Interrupted):
        attempt(call, Upstream(lambda: call.interrupt("gone")))
    assert call.cost_nano == 0


def test_nobody_is_asked_for_a_client_that_left_between_two_attempts(call) -> None:
    call.interrupt("gone")
    gevent.sleep(0)  # while nothing is waited for
    with pytest.raises(Interrupted):
        attempt(call, cast("Any", None))


def test_a_stream_ends_whose_client_left_while_a_piece_was_written(call) -> None:
    exchange = Endless()
    pieces, outcomes = relayed(call, exchange)
    call.interrupt("gone")
    gevent.sleep(0)
    assert list(pieces) == []
    assert exchange.closed and outcomes == ["cancelled"]


def test_a_stream_that_is_read_on_for_its_usage_ends_with_its_worker(call) -> None:
    call.drains = True
    exchange = Endless(lambda: call.interrupt("stopping"))
    pieces, outcomes = relayed(call, exchange)
    cast("Any", pieces).close()  # the client has gone
    assert exchange.closed and outcomes == ["error"] and call.error_code == "stopping"


class Ending:
    """A stream of one piece, and what ends it."""

    usage, finish_reason, media_type = Usage(completion_tokens=1), None, None

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def events(self) -> Pieces:
        yield from self._pieces
        return b"event: message_stop"

    def conclude(self) -> Usage:
        return self.usage

    def close(self) -> None:
        """There is no connection."""


@pytest.mark.parametrize("told", [(b"one",), ()])
def test_what_ends_a_stream_leaves_once_it_is_settled_and_is_the_end_of_it(call: Call, told: tuple[bytes, ...]) -> None:
    settled: list[str] = []
    exchange = Ending(*told)
    first, pieces = attempts._begun(exchange.events())
    stream = streaming.relay(call, Delivery(cast("Any", exchange), first, pieces), lambda: settled.append(call.outcome))
    came = []
    for piece in stream:
        came.append((piece, list(settled)))
    call.interrupt("gone")  # as clients do that know the end
    assert came == [*((piece, []) for piece in told), (b"event: message_stop" + call.dialect.end, ["ok"])]


class Silent:
    """An adapter whose upstream says nothing."""

    abilities, settings = frozenset(("chat",)), EchoSettings()

    def open(self, request: UpstreamRequest, deployment: Any) -> OpenAIExchange:
        gevent.sleep(60)
        raise AssertionError("nobody left")


@pytest.mark.parametrize(
    ("patient_s", "stream", "opens"), [(0.0, True, True), (60.0, True, False), (0.0, False, False)]
)
def test_a_stream_that_clients_leave_before_it_begins_is_its_upstreams_failure(
    call: Call, monkeypatch: pytest.MonkeyPatch, patient_s: float, stream: bool, opens: bool
) -> None:
    monkeypatch.setattr(attempts, "PATIENT_S", patient_s)
    call.request.stream = stream
    way = Deployment(id="d", provider_id="p", upstream_model="m")
    candidate = Candidate(way, Provider(id="p", name="p", kind="vllm"), Silent())
    breakers = Breakers(lambda *command: None)
    for _ in range(3):
        call.gone = False
        waiting = gevent.spawn(attempts.deliver, call, [candidate], breakers)
        gevent.sleep(0)
        call.interrupt("gone")
        with pytest.raises(Interrupted):
            waiting.get()
    assert bool(breakers.trips) == opens
