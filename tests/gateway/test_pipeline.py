"""The journey of a call: what is reserved for it, what comes of it, and that it is settled once however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hiredis import ReplyError
from hypothesis import given
from hypothesis import strategies as st

from app.directory import DatedPrice, Deployment, Price, Provider
from app.gateway import pipeline
from app.gateway.breakers import Breakers
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.local_rates import LocalRates
from app.gateway.redis_wire import RedisAway
from app.gateway.routing import Candidate
from app.gateway.runtime import Runtime, SpoolFull
from app.metering import money
from app.metering.reservations import Charge, Hold, MeterClosed, Refused
from app.metering.scopes import ScopeRef
from app.providers.addresses import AddressPolicy
from app.providers.base import UpstreamError
from app.providers.echo import ADAPTER as ECHO
from app.providers.echo import EchoSettings
from config import Config
from tests.gateway.dialects.calls import MODEL, asked, chat

PAID, FREE = (Price(id="p", rates={"input_per_mtok": rate, "output_per_mtok": rate}) for rate in (money.NANO, 0))


class Process:
    """A gateway whose meter grants, or raises; it notes what came of calls."""

    def __init__(self, trouble: BaseException | None = None, adapter: Any = None) -> None:
        adapter = adapter or ECHO(EchoSettings(), policy=AddressPolicy(allow_private=True))
        way = Candidate(Deployment("d", "p", "up"), Provider(id="p", name="p", kind="echo"), adapter)
        self.ways = [way]
        self.routes = SimpleNamespace(
            candidates=lambda *asked: self.ways,
            breakers=Breakers(lambda *command: None),
            with_credentials=lambda caller, ways: ways,
        )
        self.config = Config()
        self.local_rates = LocalRates()
        self.trouble = trouble
        self.granted: dict[str, Any] = {"output_limit": 50, "bounded": True}
        self.charges: list[Charge] = []
        self.begun: list[Call] = []
        self.settled: list[tuple[str, int, str | None]] = []
        self.begin = self.begun.append

    def reserve(self, call: Call, chain: Any, charge: Charge, query: Any) -> Hold:
        self.charges.append(charge)
        if self.trouble is not None:
            raise self.trouble
        return Hold(call.id, chain, (), [], 0, charge.base_nano, **{**self.granted, "requests_limit": 60})

    def settle(self, call: Call) -> None:
        self.settled.append((call.outcome, call.status, call.error_code))

    def run(self, call: Call) -> pipeline.Served:
        return pipeline.run(cast(Runtime, self), call)


def call(price: Price | None = PAID, **fields: Any) -> Call:
    prices = () if price is None else (DatedPrice(from_ms=0, price=price),)
    model = msgspec.structs.replace(MODEL, prices=prices, max_output_tokens=1000)
    return asked(chat("one two three", **fields), model)


def refused(process: Process, made: Call) -> ApiError:
    with pytest.raises(ApiError) as error:
        process.run(made)
    return error.value


def test_a_whole_answer_is_settled_before_it_leaves() -> None:
    process, made = Process(), call()
    served = process.run(made)
    assert isinstance(served.body, bytes) and b"one two three" in served.body
    assert process.settled == [("ok", 200, None)] and process.begun == [made]
    assert served.headers["x-portico-max-tokens"] == "50" and made.request.max_output == 50


def test_a_stream_is_settled_when_it_has_ended_and_not_before() -> None:
    process = Process()
    served = process.run(call(stream=True))
    assert process.settled == []
    pieces = cast(Iterator[bytes], served.body)
    first = next(pieces)
    assert first.startswith(b"data: ") and process.settled == []
    assert list(pieces)[-1].endswith(b"data: [DONE]\n\n")
    assert process.settled == [("ok", 200, None)]


def test_an_own_limit_is_neither_changed_nor_told() -> None:
    process, made = Process(), call(max_tokens=5)
    process.granted["output_limit"] = 5
    assert "x-portico-max-tokens" not in process.run(made).headers
    assert process.charges[0].output_limit == made.request.max_output == 5


def test_a_call_that_nobody_can_serve_holds_nothing() -> None:
    process = Process()
    process.ways = []
    assert refused(process, call()).status == 502
    assert process.charges == process.settled == []


def test_a_refused_call_tells_which_limit_and_asks_nobody() -> None:
    process = Process(Refused("budget", ScopeRef("key", "k", "k"), limit=5, amount=7))
    error = refused(process, call())
    assert (error.status, error.code) == (429, "insufficient_quota")
    assert error.refusal is not None and (error.refusal.reason, error.refusal.limit) == ("budget", 5)
    assert process.begun == process.settled == []


@pytest.mark.parametrize("trouble", [RedisAway("x"), ReplyError("x"), MeterClosed("x"), SpoolFull()])
def test_money_fails_closed_when_the_meter_does_not_take_it(trouble: Exception) -> None:
    for price in (PAID, None):
        process = Process(trouble)
        assert refused(process, call(price)).status == 503
        assert process.begun == process.settled == []


@pytest.mark.parametrize("trouble", [RedisAway("x"), ReplyError("x"), MeterClosed("x")])
def test_what_is_free_goes_on_without_the_meter_as_often_as_its_key_may(trouble: Exception) -> None:
    process = Process(trouble)
    process.local_rates.learn("k", 2)
    for _ in range(2):
        made = call(FREE)
        assert process.run(made).body
        assert (made.hold.reserved, made.hold.amount_nano) == (False, 0)
    error = refused(process, call(FREE))
    assert (error.status, error.headers["Retry-After"]) == (429, "30")
    assert len(process.settled) == 2


def test_a_full_spool_lets_in_nothing_not_even_what_is_free() -> None:
    assert refused(Process(SpoolFull()), call(FREE)).status == 503


class Failing:
    """An adapter that raises."""

    abilities, settings = frozenset(("chat",)), EchoSettings()

    def __init__(self, trouble: BaseException) -> None:
        self.trouble = trouble

    def open(self, request: Any, deployment: Any) -> Any:
        raise self.trouble


@pytest.mark.parametrize(
    ("trouble", "raised", "settled"),
    [
        (lambda: UpstreamError("It is down."), ApiError, ("error", 502, "upstream_error")),
        (lambda: UpstreamError("No.", refused=True, status=400, code="bad"), ApiError, ("error", 400, "bad")),
        (lambda: ZeroDivisionError(), ZeroDivisionError, ("error", 500, "internal_error")),
        (lambda: Interrupted("gone"), Interrupted, ("cancelled", 499, "client_gone")),
        (lambda: Interrupted("fenced"), Interrupted, ("error", 503, "hold_lost")),
        (lambda: Interrupted("stopping"), Interrupted, ("error", 503, "stopping")),
    ],
)
def test_a_call_is_settled_once_however_it_fails(
    trouble: Callable[[], BaseException], raised: type[BaseException], settled: Any
) -> None:
    process, made = Process(adapter=Failing(trouble())), call()
    with pytest.raises(raised) as error:
        process.run(made)
    assert process.settled == [settled] and made.ended_at is not None
    if isinstance(error.value, ApiError):
        assert error.value.headers["x-ratelimit-limit-requests"] == "60"


RATES = st.dictionaries(
    st.sampled_from(["input_per_mtok", "cached_input_per_mtok", "output_per_mtok", "per_request"]),
    st.integers(0, money.NANO * 100),
)


@given(RATES, st.none() | st.integers(1, 5000), st.integers(1, 5), st.integers(0, 5000), st.integers(0, 5000))
def test_no_use_within_the_bound_costs_more_than_what_is_asked_for(
    rates: dict[str, int], limit: int | None, n: int, prompt: int, completion: int
) -> None:
    made = call(Price(id="p", rates=rates), max_tokens=limit, n=n)
    charge = pipeline.charge_of(made)
    output = charge.assumed_output if charge.output_limit is None else charge.output_limit
    hold = charge.base_nano + money.up(output * charge.answers, charge.output_price)
    used = {
        "prompt_tokens": min(prompt, made.bound.input), "cached_tokens": min(prompt, made.bound.input) // 2,
        "completion_tokens": min(completion, output * n),
    }  # fmt: skip
    assert pipeline.pricing.cost_nano(made.price, used) <= hold
    assert charge.priced is bool(rates)
