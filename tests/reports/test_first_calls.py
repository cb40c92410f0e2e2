"""A key is connected once a client's call was answered; until then it is told why the last one was refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import clock, current, store
from app.extensions import db
from app.ledger.posting import post
from app.metering.usage import LastCall, UsageEvent
from app.reports import first_calls
from app.reports.first_calls import Progress
from app.runtime.agents import Agent
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    wire,
)
from tests.ledger.books import refused_event


def note(wire: redis.Redis, agent: Agent | None, status: int = 200, **fields: Any) -> LastCall:  # noqa: F811
    call = LastCall(
        **{"request_id": f"{agent}-{status}", "at_ms": clock.now_ms(), "agent": agent, "status": status, **fields}
    )
    outcome = "ok" if status == 200 else "refused"
    wire.hset(store.last_calls("key"), f"{outcome}:{agent or ''}", msgspec.json.encode(call))
    return call


def book(people: People, request_id: str, **fields: Any) -> None:  # noqa: F811
    base = {
        "request_id": request_id, "attempt": 1, "at_ms": clock.now_ms(), "person_id": people.owner.id, "key_id": "key",
        "model": "small", "endpoint": "/v1/chat/completions", "api_type": "chat", "outcome": "ok", "status": 200,
    }  # fmt: skip
    post([UsageEvent(**{**base, **fields})])
    db.session.rollback()


def read(people: People, *among: Agent | None) -> Progress:  # noqa: F811
    return first_calls.progress(people.owner, "key", among or None)


def test_a_key_that_was_never_used_waits(people: People) -> None:  # noqa: F811
    assert read(people).first.state == "waiting"


def test_the_answered_call_of_the_client_makes_it_green_and_another_clients_does_not(
    people: People,  # noqa: F811
    wire: redis.Redis,  # noqa: F811
) -> None:
    note(wire, "curl")
    book(people, "curl-200")
    assert read(people).first.request_id == read(people, "curl").first.request_id == "curl-200"
    elsewhere = read(people, "claude-code")
    assert (elsewhere.first.state, elsewhere.others) == ("waiting", ("curl",))
    note(wire, "claude-code")
    arrived = read(people, "claude-code").first
    assert (arrived.state, arrived.request_id, arrived.agent) == ("ok", "claude-code-200", "claude-code")
    assert not arrived.has_page, "the ledger does not know it yet"
    book(people, "claude-code-200")
    assert read(people, "claude-code").first.has_page


def test_a_client_that_is_not_recognised_counts_only_where_that_is_expected(
    people: People,  # noqa: F811
    wire: redis.Redis,  # noqa: F811
) -> None:
    note(wire, None)
    assert read(people).first.state == read(people, "cline", None).first.state == "ok"
    assert (read(people, "codex").first.state, read(people, "codex").others) == ("waiting", (None,))


def test_a_refused_call_tells_its_reason_until_one_is_answered(people: People, wire: redis.Redis) -> None:  # noqa: F811
    note(wire, "codex", 404, code="model_not_found", message="No such model.")
    first = read(people, "codex").first
    assert (first.state, first.code, first.reason, first.has_page) == (
        "failed",
        "model_not_found",
        "No such model.",
        False,
    )
    note(wire, "codex", at_ms=clock.now_ms() + 5)
    answered = read(people, "codex")
    assert answered.first.state == "ok"
    assert answered.refused is not None and answered.refused.reason == "No such model."


def test_a_refusal_of_long_ago_is_not_told_beside_an_answer(people: People, wire: redis.Redis) -> None:  # noqa: F811
    note(wire, "codex", 404, at_ms=clock.now_ms() - 2 * first_calls.LATELY_MS)
    note(wire, "codex")
    assert read(people, "codex").refused is None


def test_a_refusal_that_is_kept_has_a_page(people: People, wire: redis.Redis) -> None:  # noqa: F811
    note(wire, "curl", 429, code="insufficient_quota", message="Spent.")
    post([refused_event(request_id="curl-429", person_id=people.owner.id, key_id="key")])
    db.session.rollback()
    assert read(people).first.has_page


def test_a_stream_that_broke_off_is_a_failure(people: People, wire: redis.Redis) -> None:  # noqa: F811
    note(wire, "curl")
    book(people, "curl-200", outcome="error", status=200, error_code="upstream_cut", error_message="It was cut.")
    first = read(people).first
    assert (first.state, first.code, first.reason, first.has_page) == ("failed", "upstream_cut", "It was cut.", True)
    book(people, "later")
    assert (read(people).first.state, read(people).first.request_id) == ("ok", "later")


@pytest.mark.parametrize(("outcome", "state"), [("ok", "ok"), ("error", "failed"), ("cancelled", "waiting")])
def test_the_ledger_knows_of_calls_that_redis_has_forgotten_but_not_of_their_client(
    people: People,  # noqa: F811
    outcome: str,
    state: str,
) -> None:
    book(people, "old", outcome=outcome)
    assert read(people).first.state == read(people, "curl", None).first.state == state
    of_codex = read(people, "codex")
    assert of_codex.first.state == "waiting"
    assert of_codex.others == ((None,) if outcome == "ok" else ())


def test_without_redis_and_with_what_cannot_be_read_the_ledger_answers(
    people: People,  # noqa: F811
    wire: redis.Redis,  # noqa: F811
    inside: Flask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book(people, "old")
    wire.hset(store.last_calls("key"), "ok:", "not JSON")
    assert read(people).first.request_id == "old"
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(current, "redis", lambda: gone)
    assert read(people).first.request_id == "old"
