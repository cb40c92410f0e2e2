"""The pages about usage: how wide a door looks, and what a single request tells of its tries, its speed and its cost."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.domain import teams
from app.extensions import transaction
from app.ledger.entries import UsageEntry
from app.pages import usage_routes as routes
from app.pages.usage import GONE
from app.reports.usage import Filters
from tests.house import People, make_model

ATTEMPTS = st.lists(
    st.builds(lambda ms: {"provider_id": "p", "deployment_id": "d", "duration_ms": ms}, st.integers(0, 10**6)),
    max_size=6,
)


def entry(**fields: Any) -> UsageEntry:
    base: dict[str, Any] = {
        "kind": "usage", "stream": True, "completion_tokens": 50, "duration_ms": 1500, "ttft_ms": 500, "attempts": [],
        "cost_nano": 0, "model": "small", "endpoint": "/v1/chat/completions", "scopes": [], "price_id": None,
        "prompt_tokens": 0, "cached_tokens": 0,
    }  # fmt: skip
    return UsageEntry(**{**base, **fields})


@pytest.mark.parametrize(
    ("fields", "speed"),
    [
        ({}, 50.0),
        ({"stream": False}, None),
        ({"ttft_ms": None}, None),
        ({"ttft_ms": 1500}, None),
        ({"completion_tokens": 0}, None),
        ({"completion_tokens": 1, "ttft_ms": 1200}, 3.3),
    ],
)
def test_a_speed_is_that_of_a_stream_from_its_first_token_on(fields: dict[str, Any], speed: float | None) -> None:
    assert routes.speed(entry(**fields)) == speed


@pytest.mark.parametrize(("tries", "fallbacks"), [(0, 0), (1, 0), (2, 1), (3, 2)])
def test_the_last_try_is_no_fallback(tries: int, fallbacks: int) -> None:
    assert routes.fallbacks(entry(attempts=[{}] * tries)) == fallbacks


@given(ATTEMPTS, st.integers(0, 10**6))
def test_tries_follow_each_other_within_the_whole(attempts: list[dict[str, Any]], duration_ms: int) -> None:
    named = routes.RequestNames({}, {}, {"p": "Lab"}, {}, {})
    bars = routes._waterfall(entry(attempts=attempts, duration_ms=duration_ms), named)
    assert [bar.number for bar in bars] == list(range(1, len(attempts) + 1))
    started = 0
    for bar in bars:
        assert (bar.started_ms, bar.provider, bar.upstream_model) == (started, "Lab", GONE)
        assert 0 <= bar.left <= 100 and 0.5 <= bar.width <= 100
        assert bar.width == 0.5 or bar.left + bar.width <= 100.01
        started += bar.duration_ms


def test_a_team_is_told_apart_by_its_owners_alone(app: Flask, people: People) -> None:
    team = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    transaction(teams.put_member, team, people.stranger, by=people.owner, role="member")
    for person, address, people_too in (
        (people.owner, f"/usage?team={team.id}", True),
        (people.stranger, f"/usage?team={team.id}", False),
        (people.admin, f"/usage?team={team.id}", False),
        (people.owner, "/usage", False),
    ):
        with app.test_request_context(address):
            door = routes.PORTAL.to(person)
            assert (door.people, "user" in door.groups) == (people_too, people_too)
            assert routes.ADMIN.to(person).groups == routes.ADMIN.groups


@pytest.mark.parametrize(
    ("status", "filtered"),
    [("ok", "ok"), ("error", "error"), ("502", 502), ("50", None), ("٥٠٢", None), ("all", None), ("", None)],
)
def test_a_status_is_an_outcome_or_a_number_of_http(status: str, filtered: object) -> None:
    with Flask("x").test_request_context("/", query_string={"status": status, "endpoint": "", "code": "timeout"}):
        found = routes._with_request_filters(Filters(model="small"))
    assert (found.status, found.endpoint, found.error_code, found.model) == (filtered, None, "timeout", "small")


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (("key", "k", "total"), ("Key", "nightly", "in total")),
        (("key", "gone", "day-1"), ("Key", "gone", "of that day")),
        (("user", "u", "month-1"), ("Person", "ada", "of that month")),
        (("member", "t:u", "week-1"), ("Share of a team", "ada", "of that week")),
        (("team", "t", "total"), ("Team", "Research", "in total")),
        (("subscription", "s", "total"), ("Subscription", "small", "in total")),
        (("organisation", "default", "total"), ("Organisation", "everyone", "in total")),
        (("planet", "earth", "year-1"), ("planet", "earth", "year-1")),  # of a version that is newer
    ],
)
def test_a_counter_that_was_charged_is_told_by_its_name(
    scope: tuple[str, str, str], told: tuple[str, str, str]
) -> None:
    named = routes.RequestNames({"u": "ada"}, {"k": "nightly"}, {}, {}, {"t": "Research"})
    assert routes._charged(scope, entry(), named) == told


@pytest.mark.parametrize(
    ("kind", "cost", "explained"), [("usage", 5, True), ("usage", 0, False), ("late", 5, False), ("credit", 5, False)]
)
def test_only_the_cost_of_a_request_is_explained_by_its_price(
    people: People, kind: str, cost: int, explained: bool
) -> None:
    price = transaction(make_model, people.admin).price
    assert price is not None
    found = routes._sum(entry(kind=kind, cost_nano=cost, price_id=price.id, prompt_tokens=5))
    assert (found is not None) is explained
    assert routes._sum(entry(kind=kind, cost_nano=cost, price_id="gone")) is None


def test_a_name_with_a_quote_ends_no_command(inside: Flask) -> None:
    with inside.test_request_context():
        told = routes._curl(entry(model="a'; rm -rf /; '", endpoint="/v1/audio/transcriptions"))
    assert "model=a'\\''; rm -rf /; '\\'''" in told
    assert "$PORTICO_API_KEY" in told
