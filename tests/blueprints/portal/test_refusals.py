"""Why was I stopped? A refused request has a page for a day, for its owner and for admins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask

from app import clock, store
from app.domain.catalog import Model
from app.metering.usage import Refusal
from app.runtime.ids import new_id
from config import Config
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People, configured, sign_in

SignedIn = Callable[[str], Browser]
NANO = 1_000_000_000


@pytest.fixture
def config(config: Config, home: Path, valkey_url: str, database_url: str) -> Config:
    """With the management API as well."""
    return configured(home, valkey_url, database_url, "portal,admin,public,api")


def refuse(wire: redis.Redis, person_id: str, **changes: Any) -> str:
    """The record of a refused request as the gateway leaves it; its id."""
    at_ms = clock.now_ms()
    base: dict[str, Any] = {
        "request_id": new_id(),
        "at_ms": at_ms,
        "person_id": person_id,
        "key_id": None,
        "model": "small",
        "endpoint": "/v1/chat/completions",
        "reason": "budget",
        "scope_kind": "user",
        "scope_id": person_id,
        "scope_shown": "owner",
        "message": "The budget of user owner can't pay for this request.",
        "limit": 2 * NANO,
        "spent": NANO,
        "held": NANO // 2,
        "amount": 3 * NANO // 4,
        "affordable_tokens": 1234,
        "resets_ms": at_ms + 5 * 86_400_000,
        **changes,
    }
    record = Refusal(**base)
    wire.set(store.refusal(record.request_id), msgspec.json.encode(record), ex=86_400)
    return record.request_id


def test_a_budget_refusal_shows_its_numbers_and_ways_on(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    id = refuse(wire, people.owner.id)
    page = signed_in("owner").page(f"/activity/{id}")
    assert page.status == "Refused"
    assert page.alert.heading == "Not enough budget left for this request"
    assert "can't pay for this request" in page.alert
    stopped = page.section("What stopped it")
    assert "The limit of your own budget." in stopped
    assert stopped.facts == {
        "Limit": "$2.00", "Spent": "$1.00", "Reserved for calls under way": "$0.50", "Remaining": "$0.50",
        "This request needed": "$0.75", "Resets": stopped.facts["Resets"],
    }  # fmt: skip
    assert stopped.facts["Resets"].startswith("in 4 days")
    less, wait, more, _ = page.section("What you can do").items
    assert "max_tokens of at most 1,234" in less
    assert "$0.50 was reserved" in wait
    assert more.link("Request an increase of this budget").href == f"/budgets/user/{people.owner.id}"
    details = page.section("Details").facts
    assert (details["Cost"], details["Key"]) == ("Nothing was charged", "Access token")
    assert id in page.codes


def test_a_refusal_by_an_overspent_budget_says_by_how_much(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    id = refuse(wire, people.owner.id, spent=2 * NANO + 190_000_000, held=0)
    assert signed_in("owner").page(f"/activity/{id}").definition("Remaining") == "$0.19 over"


def test_a_keys_refusal_leads_to_the_key(people: People, small: Model, wire: redis.Redis, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="app <key>")
    id = refuse(
        wire, people.owner.id, key_id=key, scope_kind="key", scope_id=key, scope_shown=key, affordable_tokens=0,
        resets_ms=None,
    )  # fmt: skip
    page = signed_in("owner").page(f"/activity/{id}")
    assert "The limit of the key app <key>." in page.section("What stopped it")
    assert page.definition("Resets") == "It does not reset"
    ways = page.section("What you can do").items
    assert "cheaper model" in ways[0]
    assert "You can raise the limit of app <key>" in ways[-1]
    assert ways[-1].link("app <key>").href == f"/keys/{key}"


@pytest.mark.parametrize(
    ("reason", "headline", "limit", "ways"),
    [
        (
            "requests",
            "There were too many requests in a minute",
            "10 requests a minute",
            ("Try again after 6.0 s", "Spread your requests"),
        ),
        (
            "tokens",
            "There were too many tokens in a minute",
            "10 tokens a minute",
            ("Try again after", "shorter prompts"),
        ),
        (
            "parallel",
            "Too many requests ran at the same time",
            "10 at the same time",
            ("Try again", "Let fewer requests run"),
        ),
        ("unpriced", "What it costs is not known", None, ("0 makes it free", "Use another model")),
    ],
)
def test_other_limits_explain_themselves(
    people: People,
    small: Model,
    wire: redis.Redis,
    signed_in: SignedIn,
    reason: str,
    headline: str,
    limit: str | None,
    ways: tuple[str, ...],
) -> None:
    id = refuse(wire, people.owner.id, reason=reason, limit=10, retry_ms=6000, resets_ms=None)
    page = signed_in("owner").page(f"/activity/{id}")
    assert page.alert.heading == headline
    assert page.section("What stopped it").facts.get("Limit") == limit
    for words, told in zip(ways, page.section("What you can do").items, strict=False):
        assert words in told


@pytest.mark.parametrize(("who", "status"), [("owner", 200), ("stranger", 404), ("admin", 200), ("auditor", 200)])
def test_a_refusal_is_seen_by_its_person_and_by_admins(
    app: Flask, people: People, small: Model, wire: redis.Redis, signed_in: SignedIn, who: str, status: int
) -> None:
    id = refuse(wire, people.owner.id)
    page = signed_in(who).page(f"/activity/{id}", status=status)
    if status == 200:
        assert page.section("Details").facts.get("Person") == (None if who == "owner" else "owner")


def test_the_owner_of_the_key_sees_it_too(people: People, small: Model, wire: redis.Redis, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner)
    id = refuse(wire, people.stranger.id, key_id=key)
    for who in ("owner", "stranger"):
        assert signed_in(who).get(f"/activity/{id}").status_code == 200
    assert signed_in("owner").get("/activity/nothing").status_code == 404


def test_the_books_come_first_and_a_broken_record_is_none(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    id = use(people.owner, small, clock.now_ms())
    refuse(wire, people.owner.id, request_id=id)
    owner = signed_in("owner")
    assert "What it cost" in owner.page(f"/activity/{id}").headings
    wire.set(store.refusal("broken"), "{")
    assert owner.get("/activity/broken").status_code == 404


def test_programs_are_told_the_same(app: Flask, people: People, small: Model, wire: redis.Redis) -> None:
    key, _ = make_key(people.owner, name="app")
    id = refuse(wire, people.owner.id, key_id=key)
    rate = refuse(wire, people.owner.id, reason="requests", limit=10, retry_ms=6000)
    owner = sign_in(app, "owner")
    told = owner.get(f"/api/requests/{id}").get_json()
    assert (told["status"], told["outcome"], told["cost"], told["user"], told["key_name"]) == (
        "refused", "refused", "0", "owner", "app",
    )  # fmt: skip
    limit = told["refusal"]
    assert (limit["reason"], limit["scope"], limit["id"]) == ("budget", "user", people.owner.id)
    assert (limit["limit"], limit["spent"], limit["reserved"], limit["needed"]) == ("2", "1", "0.5", "0.75")
    assert (limit["affordable_tokens"], limit["per_minute"]) == (1234, None)
    assert told["error"]["code"] == "budget"
    other = owner.get(f"/api/requests/{rate}").get_json()["refusal"]
    assert (other["per_minute"], other["limit"]) == (10, None)
    assert other["frees_at"] > told["at"]
    assert sign_in(app, "admin").get(f"/api/requests/{id}").status_code == 200
    assert sign_in(app, "stranger").get(f"/api/requests/{id}").status_code == 404
