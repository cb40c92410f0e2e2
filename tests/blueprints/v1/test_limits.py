"""Limits on /v1: nobody spends more than a budget has, and every refusal says why."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import clock, store
from app.directory import Price
from app.gateway.dialects.openai import OWN_BYTES
from app.metering import money
from tests.blueprints.v1.conftest import Client, key_id
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Answer, Greedy, Upstream, WhenReleased, chat
from tests.services.waiting import until, within


def bytes_in(body: dict[str, Any], upstream_model: str) -> int:
    """The tokens that a body's input can be."""
    return len(json.dumps(body)) + 16 * len(body["messages"]) + OWN_BYTES + len(upstream_model)


def words(**fields: Any) -> dict[str, Any]:
    """What `Client.chat` sends."""
    return {"model": "small", "messages": [{"role": "user", "content": "one two three"}], **fields}


@pytest.mark.both_lanes
def test_200_requests_at_once_on_a_budget_that_pays_for_50_never_exceed_it(gate, key, client):
    # "one two three" is held at its bytes in and 3 tokens out, and costs 3 in and 3 out: 9,000 nano-units.
    hold = bytes_in(words(model="echo-1", max_tokens=3), "echo-1-up") * 1000 + 3 * 2000
    limit = 49 * 9_000 + hold  # the 50th request's hold fits exactly when 49 are settled
    gate.limit("organisation", "default", money.text(limit))
    with ThreadPoolExecutor(40) as crowd:
        replies = list(crowd.map(lambda _: client.chat(model="echo-1", max_tokens=3), range(200)))
    served = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    assert len(served) + len(refused) == 200
    while client.chat(model="echo-1", max_tokens=3).status == 200:  # one by one to the last that fits
        served.append(replies[0])
    assert len(served) == 50
    assert {reply.error for reply in refused} == {(429, "insufficient_quota", "insufficient_quota")}
    assert {reply.headers["x-should-retry"] for reply in refused} == {"false"}
    events = gate.events(50)
    assert sum(event.cost_nano for event in events) == 50 * 9_000
    assert gate.counted("organisation", "default") == (50 * 9_000, 0)
    assert gate.counted("key", key_id(key)) == (50 * 9_000, 0)


@pytest.mark.parametrize(
    ("kind", "id", "shown"),
    [
        ("key", "key-mine", "key key-mine"),
        ("subscription", "subscription-echo-1", "subscription subscription-echo-1"),
        ("user", "person-1", "user ada"),
        ("organisation", "default", "organisation default"),
    ],
)
def test_the_refusal_names_the_tightest_scope_its_limit_and_its_reset(gate, kind, id, shown):
    client = Client(gate, gate.key(id="key-mine"))
    for each, its_id in (("key", "key-mine"), ("user", "person-1"), ("organisation", "default")):
        gate.limit(each, its_id, "1")
    gate.limit(kind, id, "0.00001", "month", "Europe/Berlin")
    reply = client.chat(model="echo-1", max_tokens=3)
    message = reply.json["error"]["message"]
    assert reply.status == 429
    assert shown in message
    assert "limit 0.00001" in message
    assert "resets at" in message


def test_a_request_that_names_no_limit_is_given_one_that_fits_and_it_is_sent_upstream(gate, key, client, upstream):
    gate.limit("key", key_id(key), money.text(bytes_in(words(), "small-up") * 1000 + 100 * 2000))
    reply = client.chat()
    assert reply.status == 200
    assert reply.headers["x-portico-max-tokens"] == "100"
    assert upstream.last.json["max_tokens"] == 100


def test_without_a_budget_the_request_goes_up_unbounded(client, upstream):
    reply = client.chat()
    assert "x-portico-max-tokens" not in reply.headers
    assert not {"max_tokens", "max_completion_tokens"} & upstream.last.json.keys()


@pytest.mark.parametrize("kind", ["vllm", "openai"])
@pytest.mark.parametrize(
    "given",
    [{"max_completion_tokens": 1, "max_tokens": 5000}, {"max_completion_tokens": 5000, "max_tokens": 1}, {"max_tokens": 1},
     {"max_completion_tokens": 1}, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": None}],
    ids=str,
)  # fmt: skip
def test_40_calls_at_once_to_an_upstream_that_takes_all_it_is_let_never_overspend(
    gate, key, client, upstream, kind, given
):
    gate.provider("up", kind=kind, base_url=upstream.url)
    field = "max_tokens" if kind == "vllm" else "max_completion_tokens"
    upstream.always(CHAT, Greedy(field))
    limit = 4 * bytes_in(words(**given), "small-up") * 1000 + 200 * 2000
    gate.limit("key", key_id(key), money.text(limit))
    with ThreadPoolExecutor(40) as crowd:
        replies = list(crowd.map(lambda _: client.chat(**given), range(40)))
    served = sum(reply.status == 200 for reply in replies)
    assert {reply.status for reply in replies} == {200, 429}
    told = [reply.headers.get("x-portico-max-tokens") for reply in replies if reply.status == 200]
    events = gate.events(served)
    assert sum(event.cost_nano for event in events) <= limit
    assert [event.overdraft_nano for event in events] == [0] * served
    assert gate.counted("key", key_id(key)) == (sum(event.cost_nano for event in events), 0)
    asked_for = min((limit for limit in given.values() if limit is not None), default=None)
    for exchange in upstream.requests:
        assert [name for name in ("max_tokens", "max_completion_tokens") if name in exchange.json] == [field]
    sent = [exchange.json[field] for exchange in upstream.requests]
    if asked_for is None:  # what was reserved goes up, and each client is told
        assert sorted(map(str, sent)) == sorted(told)
    else:
        assert (sent, set(told)) == ([asked_for] * served, {None})


@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_without_a_budget_the_smaller_limit_goes_up_alone_and_none_is_none(gate, client, upstream, kind):
    gate.provider("up", kind=kind, base_url=upstream.url)
    client.chat(max_tokens=9, max_completion_tokens=7)
    field = "max_tokens" if kind == "vllm" else "max_completion_tokens"
    found = {name: upstream.last.json.get(name) for name in ("max_tokens", "max_completion_tokens")}
    assert found == {"max_tokens": None, "max_completion_tokens": None} | {field: 7}
    assert "x-portico-max-tokens" not in client.chat(max_tokens=None).headers
    assert not {"max_tokens", "max_completion_tokens"} & upstream.last.json.keys()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": "hi", "name": "n" * 4_000}]},
        {"messages": [{"role": "tool", "content": "hi", "tool_call_id": "t" * 4_000}]},
        {"messages": [{"role": "assistant", "content": None, "reasoning_content": "r" * 4_000}]},
        {"messages": [{"role": "user", "content": [{"type": "of_tomorrow", "words": "w" * 4_000}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "t" * 4_000}]}]},
        {"documents": ["d" * 4_000]}, {"chat_template_kwargs": {"documents": "d" * 4_000}}, {"n" * 200: [["x" * 4_000]]},
        {"prediction": {"type": "content", "content": "p" * 4_000}, "n": 3}, {"n": 4}, {"best_of": 7, "n": 2},
    ],
    ids=lambda fields: str(fields)[:60],
)  # fmt: skip
def test_whatever_an_upstream_charges_of_what_it_is_sent_was_held(gate, key, client, upstream, more, stream):
    upstream.always(CHAT, Greedy())
    gate.limit("key", key_id(key), "1")
    reply = client("/v1/chat/completions", words(max_tokens=50, stream=stream) | more)
    assert reply.status == 200, reply.body
    (event,) = gate.events(1)
    assert event.prompt_tokens == len(upstream.last.body)
    assert 0 < event.cost_nano <= event.hold_nano
    assert event.overdraft_nano == 0


@pytest.mark.parametrize(
    ("fields", "member"),
    [
        ({"service_tier": "priority"}, "service_tier"), ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"), ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)  # fmt: skip
def test_what_costs_more_than_its_tokens_is_refused_under_a_budget_and_passes_without(
    gate, key, client, upstream, fields, member
):
    assert client.chat(**fields).status == 200
    assert upstream.last.json.items() >= fields.items()
    gate.limit("organisation", "default", "1000")
    refused = client.chat(**fields)
    assert (refused.error, refused.param) == ((400, "invalid_request_error", None), member)
    message = refused.json["error"]["message"]
    assert f"'{member}'" in message
    assert "budget of organisation default" in message
    assert gate.counted("organisation", "default")[1] == 0
    assert client.chat(service_tier="auto", modalities=["text"]).status == 200


def test_a_refusal_by_an_overspent_budget_says_by_how_much(gate, key, client):
    gate.limit("key", key_id(key), "0.00001")
    gate.redis.hset(store.spent("key", key_id(key), "total"), "spent", 10_000 + 190_000_000)
    message = client.chat().json["error"]["message"]
    assert "limit 0.00001, spent 0.19001, reserved 0, over by 0.19;" in message


@pytest.mark.both_lanes
def test_requests_a_minute_are_limited_with_headers_and_a_rejected_one_costs_nothing(gate, key, client):
    gate.limit("key", key_id(key), rpm=2)
    first = client.chat(model="echo-1")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert client.chat(model="echo-1").status == 200
    refused = client.chat(model="echo-1")
    assert refused.error == (429, "requests", "rate_limit_exceeded")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    told = {name: refused.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")}
    assert (told["limit"], told["remaining"]) == ("2", "0")
    assert 30 < float(told["reset"].removesuffix("s")) <= 60
    assert len(gate.events(2)) == 2


def test_tokens_a_minute_are_limited(gate, key, client):
    estimate = -(-bytes_in(words(model="echo-1", max_tokens=3), "echo-1-up") // 4) + 3
    gate.limit("key", key_id(key), tpm=estimate + 6)
    for _ in range(2):  # each takes the estimate, and 6 once it is settled
        assert client.chat(model="echo-1", max_tokens=3).status == 200
    refused = client.chat(model="echo-1", max_tokens=3)
    assert refused.error == (429, "tokens", "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-tokens"] == str(estimate + 6)
    assert estimate - 6 <= int(refused.headers["x-ratelimit-remaining-tokens"]) < estimate


@pytest.mark.both_lanes
@pytest.mark.parametrize(("host", "origin"), [("ai.example:81", "http://ai.example:81"), ("<a b>", None)])
def test_a_refusal_links_to_the_budget_where_the_client_found_us(gate, key, client, host, origin):
    gate.limit("key", key_id(key), "0")
    body = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
    refused = client("/v1/chat/completions", body, Host=host)
    assert refused.status == 429
    page = f"{origin or f'http://localhost:{gate.port}'}/budgets/key/{key_id(key)}"
    assert refused.json["error"]["message"].endswith(f" Ask for more at {page}")


def test_parallel_requests_are_limited(gate, key, client, upstream):
    gate.limit("key", key_id(key), parallel=1)
    released = threading.Event()
    upstream.always(CHAT, lambda body: WhenReleased(body, released))
    with ThreadPoolExecutor(1) as another:
        first = another.submit(client.chat)
        try:
            upstream.wait_for_requests(1)
            assert client.chat().status == 429
        finally:
            released.set()
        assert first.result(60).status == 200
    assert client.chat().status == 200


def test_a_model_without_a_price_is_refused_under_a_budget_and_a_free_one_is_not(gate):
    from app.directory import Price

    gate.model("unpriced", "echo", price=None)
    gate.model("free", "echo", price=Price(id="free", rates={"input_per_mtok": 0, "output_per_mtok": 0}))
    key = gate.key(id="key-spent")
    client = Client(gate, key)
    assert client.chat(model="unpriced").status == 200
    gate.limit("key", "key-spent", "0")
    assert client.chat(model="unpriced").error == (403, "invalid_request_error", "model_not_priced")
    assert client.chat(model="free").status == 200
    assert client.chat(model="echo-1").status == 429


def test_a_revoked_key_is_refused_within_a_second(gate, key, client):
    assert client("/v1/models").status == 200
    gate.revoke(key)
    within(1, lambda: client("/v1/models").status != 200)
    assert client("/v1/models").status == 401


@pytest.mark.both_lanes
def test_metrics_count_each_call_once(gate, key, client, upstream):
    from tests.services.upstream import failure

    def told() -> dict[str, float]:
        lines = client("/metrics").body.decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    before = told()
    client.chat()
    upstream.script(CHAT, failure(500))
    client.chat()
    client.chat(n=0)
    after = told()
    rows = {
        'portico_requests_total{endpoint="/v1/chat/completions",status="200"}': 1,
        'portico_requests_total{endpoint="/v1/chat/completions",status="502"}': 1,
        'portico_requests_total{endpoint="/v1/chat/completions",status="400"}': 1,
        'portico_upstream_attempts_total{outcome="failed",provider="up"}': 1,
        'portico_tokens_total{direction="in",endpoint="/v1/chat/completions"}': 3,
        'portico_cost_nano_total{endpoint="/v1/chat/completions"}': 9_000,
    }
    assert {name: after[name] - before.get(name, 0) for name in rows} == rows


def test_a_hold_whose_lease_has_ended_stands_in_nobodys_way(gate, key, client, upstream):
    """Its worker is gone, and the reaper has not come by yet."""
    from app.metering.reservations import Charge, Meter
    from app.metering.scopes import ScopeRef

    gate.limit("key", key_id(key), "0.0005")
    run_id = gate.redis.info("server")["run_id"]
    meter = Meter(gate.redis.execute_command, lambda: run_id)
    event = gate.call_event("lost")
    chain = (ScopeRef("key", key_id(key), "mine"),)
    meter.reserve("lost", chain, Charge(500_000, 0, 1, 0, 0, True, 0), event)
    assert client.chat(model="echo-1", max_tokens=3).status == 429
    gate.redis.zadd(store.LEASES, {"lost": 1})
    assert client.chat(model="echo-1", max_tokens=3).status == 200
    lost = next(event for event in gate.events(2) if event.request_id == "lost")
    assert (lost.outcome, lost.error_code, lost.cost_nano) == ("error", "worker_lost", 0)
    assert lost.scopes == (("key", key_id(key), "total"),)


def test_each_secret_of_a_key_serves_until_its_own_end_and_is_named_in_the_books(gate):
    """As a rotation with an overlap publishes them: one key, two texts, the old one with an end."""
    text = gate.key(id="key-rotated", secret_id="old")
    old = Client(gate, text)
    new = Client(gate, gate.key(id="key-rotated", secret_id="new"))
    assert [client.chat().status for client in (old, new)] == [200, 200]
    told = {(event.key_id, event.secret_id, event.outcome) for event in gate.events(2)}
    assert told == {("key-rotated", "old", "ok"), ("key-rotated", "new", "ok")}
    assert gate.counted("key", "key-rotated")[0] > 0
    end_ms = clock.now_ms() + 1500
    gate.key(id="key-rotated", secret_id="old", expires_ms=end_ms, text=text)
    until(lambda: old("/v1/models").status != 200)
    assert clock.now_ms() >= end_ms
    assert old("/v1/models").error == (401, "invalid_request_error", "invalid_api_key")
    assert new.chat().status == 200


def test_20_agents_over_http_use_98_percent_of_50_dollars_before_the_first_refusal(
    gate: Gate, upstream: Upstream
) -> None:
    """The upstream answers as long as it was asked for at the most, and notes the limit that it was sent."""
    price = Price(id="dear", rates={"input_per_mtok": money.NANO, "output_per_mtok": 100 * money.NANO})
    gate.model("small", "up", price=price, max_output_tokens=20_000)
    gate.limit("user", "person-1", "50")
    key, chance, sent = gate.key(), random.Random(3), dict[str, int]()

    def answer(body: dict[str, Any]) -> Answer:
        wanted, most = round(300 * chance.paretovariate(1.5)), body["max_tokens"]
        sent[body["messages"][0]["content"]] = most
        told = chat(body, delay_s=chance.random() * 0.02)
        assert isinstance(told, Answer)
        told.body["usage"] = {"prompt_tokens": 3, "completion_tokens": min(wanted, most)}
        return told

    upstream.always(CHAT, answer)
    ended, holds, limits = threading.Event(), dict[str, int](), dict[str, int]()

    def work(number: int) -> int:
        client, calls = Client(gate, key), 0
        while not ended.is_set():
            name = f"{number}:{calls}"
            reply = client.chat(name)
            if reply.status != 200:
                ended.set()
                assert reply.error == (429, "insufficient_quota", "insufficient_quota")
                break
            limits[name], calls = int(reply.headers["x-portico-max-tokens"]), calls + 1
            prompt = bytes_in(words(messages=[{"role": "user", "content": name}]), "small-up")
            holds[reply.headers["x-request-id"]] = prompt * 1000 + limits[name] * 100_000
        return calls

    with ThreadPoolExecutor(20) as pool:
        made = sum(pool.map(work, range(20)))
    spent, held = gate.counted("user", "person-1")
    events = gate.events(made)
    assert 0.98 * 50 * 10**9 <= spent <= 50 * 10**9 and held == 0
    assert limits == sent
    assert holds == {event.request_id: event.hold_nano for event in events}
    assert not any(event.overdraft_nano for event in events)
    assert min(sent.values()) >= 16 and max(sent.values()) == 20_000
