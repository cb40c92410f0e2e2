"""What a client is told of limits: whose it is, by how much, when it is worth another try, and the way out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.directory import Price
from app.gateway import refusals
from app.gateway.call import Call
from app.gateway.dialects import dialect
from app.gateway.endpoints import ASKED, Endpoint
from app.metering import money
from app.metering.reservations import Hold, Refused
from app.metering.scopes import ScopeRef
from app.metering.usage import Refusal
from config import Config, Gateway
from tests.gateway.dialects.calls import CALLER, asked, chat

PAYMENT_REQUIRED = Gateway(budget_stop_status=402)
KEY = ScopeRef("key", "k", "k")
MEMBER = ScopeRef("member", "t:p", "Research/ada")
AMOUNTS = st.integers(0, money.MAX_NANO)
NOW = datetime(2026, 11, 5, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.clock.now_ns", lambda: int(NOW.timestamp()) * 10**9)


def call(price: Price | None = None, **fields: Any) -> Call:
    made = asked(chat(**fields))
    made.price = price
    return made


def refusal(made: Call, *told: Any, **more: Any) -> Any:
    return refusals.refusal_of(made, Refused(*told, **more), Config())


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(-5, 5))
@example(10, 5, 9, 1, 0)  # more is held than is left
def test_a_budget_that_is_not_enough_tells_every_figure_of_it(
    limit: int, spent: int, held: int, amount: int, tokens: int
) -> None:
    error = refusal(call(), "budget", KEY, limit=limit, spent=spent, held=held, amount=amount, affordable_tokens=tokens)
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    for figure in (limit, spent, held, amount):
        assert money.text(figure) in error.message
    over = spent > limit
    assert ("over by" in error.message, "remaining" in error.message) == (over, not over)
    rest = money.text(spent - limit if over else max(limit - spent - held, 0))
    assert f"{'over by' if over else 'remaining'} {rest};" in error.message
    assert (f"max_tokens of at most {tokens} would fit" in error.message) is (tokens > 0)
    assert "It does not reset." in error.message
    assert error.headers == {"x-should-retry": "false"}
    assert "-" not in error.message.partition("Ask for more")[0].replace("max_tokens", "")


@pytest.mark.parametrize("path", ASKED.values(), ids=lambda path: path.path)
def test_a_spent_budget_may_answer_402_but_for_clients_that_show_its_message_under_429(path: Endpoint) -> None:
    spent, config = (
        Refused("budget", KEY, limit=5, amount=7),
        msgspec.structs.replace(Config(), gateway=PAYMENT_REQUIRED),
    )
    made = call()
    assert path.dialect is not None
    made.dialect = dialect(path.dialect)
    error = refusals.refusal_of(made, spent, config)
    assert error.status == (429 if path.path in ("/v1/messages", "/v1/responses") else 402)
    assert (error.code, error.headers["x-should-retry"]) == ("insufficient_quota", "false")


@pytest.mark.parametrize(("resets_in_ms", "seconds"), [(1, "1"), (1_000, "1"), (1_001, "2"), (-5_000, "1")])
def test_a_budget_that_resets_tells_when(resets_in_ms: int, seconds: str) -> None:
    error = refusal(call(), "budget", KEY, resets_ms=int(NOW.timestamp() * 1000) + resets_in_ms)
    assert error.headers["Retry-After"] == seconds
    assert "It resets at 2026-11-05T1" in error.message


def test_the_way_out_is_the_page_of_the_budget_as_the_client_reaches_it() -> None:
    made = asked(chat(), caller=msgspec.structs.replace(CALLER, team_id="t"))
    made.origin = "https://portal.example"
    error = refusal(made, "budget", MEMBER)
    assert error.message.endswith("Ask for more at https://portal.example/budgets/member/t:ada")
    assert "of member Research/ada" in error.message


@given(st.integers(1, 1000), st.integers(1, 120_000), st.sampled_from(["requests", "tokens", "parallel"]))
def test_a_rate_tells_when_it_is_worth_another_try(limit: int, retry_ms: int, reason: Any) -> None:
    error = refusal(call(), reason, KEY, limit=limit, retry_ms=retry_ms)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.type == ("tokens" if reason == "tokens" else "requests")
    wait = int(error.headers["Retry-After"])
    assert (wait - 1) * 1000 < retry_ms <= wait * 1000
    told = [name for name in error.headers if name.startswith("x-ratelimit")]
    assert len(told) == (0 if reason == "parallel" else 3)
    if told:
        assert error.headers[f"x-ratelimit-limit-{reason}"] == str(limit)
        assert 0 <= int(error.headers[f"x-ratelimit-remaining-{reason}"]) <= limit


def test_a_model_without_a_price_and_a_member_without_one_are_told_apart() -> None:
    without = refusal(call(), "unpriced", KEY)
    assert (without.status, without.code, without.param) == (403, "model_not_priced", "model")
    price = Price(id="p", rates={"input_per_mtok": 1})
    member = refusal(call(price, web_search_options={}), "unpriced", KEY)
    assert (member.status, member.param) == (400, "web_search_options")


def hold(**rates: int) -> Hold:
    return Hold("r", (), (), [], 0, 0, 0, bounded=False, **rates)


def test_who_is_let_in_is_told_of_the_rates_that_there_are_and_of_a_limit_not_named() -> None:
    made = call()
    made.hold = hold()
    assert refusals.limit_headers(made) == {}
    made.hold, made.request.max_output = hold(requests_limit=60, requests_left=59, tokens_limit=0, tokens_left=0), 99
    assert refusals.limit_headers(made) == {
        "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0s",
        "x-portico-max-tokens": "99",
    }  # fmt: skip
    named = call(max_tokens=5)
    named.hold = hold()
    assert refusals.limit_headers(named) == {}


@given(AMOUNTS, AMOUNTS, st.none() | st.integers(0, 10**13))
def test_what_is_kept_of_a_limit_is_what_was_told(limit: int, spent: int, resets_ms: int | None) -> None:
    refused = Refused("budget", MEMBER, limit=limit, spent=spent, resets_ms=resets_ms)
    assert refusals.refusal_of(call(), refused, Config()).refusal == Refusal(
        reason="budget", scope_kind="member", scope_id="t:p", scope_shown="Research/ada", limit=limit, spent=spent,
        resets_ms=resets_ms,
    )  # fmt: skip
