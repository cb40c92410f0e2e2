"""Why was I stopped? A refused request is in every list and has a page, for who made it and for admins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask import Flask

from app import clock
from app.domain import teams
from app.domain.catalog import Model
from app.extensions import transaction
from app.ledger import posting
from app.metering.usage import Refusal
from app.runtime.ids import new_id
from config import Config
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People, configured, sign_in
from tests.ledger.books import refused_event

SignedIn = Callable[[str], Browser]
NANO = 1_000_000_000


@pytest.fixture
def config(config: Config, home: Path, valkey_url: str, database_url: str) -> Config:
    """With the management API as well."""
    return configured(home, valkey_url, database_url, "portal,admin,public,api")


def refuse(person_id: str, **changes: Any) -> str:
    """Books a refused call; its id. What belongs to its limit is changed there."""
    at_ms = clock.now_ms()
    limit = {name: changes.pop(name) for name in Refusal.__struct_fields__ if name in changes}
    told = refused_event(**{"person_id": person_id, "key_id": None, "model": "small", "at_ms": at_ms} | changes)
    assert told.refusal is not None
    told.refusal = msgspec.structs.replace(told.refusal, **{"resets_ms": at_ms + 5 * 86_400_000} | limit)
    posting.post([told])
    return told.request_id


def test_a_budget_refusal_shows_its_numbers_and_ways_on(people: People, small: Model, signed_in: SignedIn) -> None:
    id = refuse(people.owner.id)
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


def test_a_refusal_by_an_overspent_budget_says_by_how_much(people: People, small: Model, signed_in: SignedIn) -> None:
    id = refuse(people.owner.id, spent=2 * NANO + 190_000_000, held=0)
    assert signed_in("owner").page(f"/activity/{id}").definition("Remaining") == "$0.19 over"


def test_a_keys_refusal_leads_to_the_key(people: People, small: Model, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="app <key>")
    id = refuse(
        people.owner.id, key_id=key, scope_kind="key", scope_id=key, scope_shown=key, affordable_tokens=0,
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
    signed_in: SignedIn,
    reason: str,
    headline: str,
    limit: str | None,
    ways: tuple[str, ...],
) -> None:
    id = refuse(people.owner.id, reason=reason, limit=10, retry_ms=6000, resets_ms=None)
    page = signed_in("owner").page(f"/activity/{id}")
    assert page.alert.heading == headline
    assert page.section("What stopped it").facts.get("Limit") == limit
    for words, told in zip(ways, page.section("What you can do").items, strict=False):
        assert words in told


@pytest.mark.parametrize(("who", "status"), [("owner", 200), ("stranger", 404), ("admin", 200), ("auditor", 200)])
def test_a_refusal_is_seen_by_its_person_and_by_admins(
    app: Flask, people: People, small: Model, signed_in: SignedIn, who: str, status: int
) -> None:
    id = refuse(people.owner.id)
    page = signed_in(who).page(f"/activity/{id}", status=status)
    if status == 200:
        assert page.section("Details").facts.get("Person") == (None if who == "owner" else "owner")


def test_many_refusals_of_a_minute_are_one_row_that_says_so(people: People, small: Model, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="app")
    id = refuse(people.owner.id, key_id=key, refused=134, counted=True)
    owner = signed_in("owner")
    page = owner.page(f"/activity/{id}")
    assert "134 requests Refused" in page.headings and "counted, not kept one by one" in page.text
    [row] = owner.page("/activity").table("Requests, newest first").rows
    assert "Refused" in row.cells["Status"] and "× 134" in row.cells["Status"]
    [line] = owner.get("/activity?format=json", buffered=True).get_json()["data"]
    assert (line["outcome"], line["calls"], line["cost"]) == ("refused", 134, "0")


def test_an_id_that_is_not_kept_leads_to_the_counts_of_its_minute(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    now_ms = clock.now_ms()
    refuse(people.owner.id, refused=7, counted=True, at_ms=now_ms - now_ms % 60_000)
    id = new_id()
    page = signed_in("owner").page(f"/activity/{id}")
    [row] = page.table("Counts of refused requests, most frequent first").rows
    assert (row.cells["Requests"], row.cells["Error"]) == ("7", "insufficient_quota")
    assert "Requests were refused in that minute" in signed_in("owner").page(f"/activity?q={id}").text
    signed_in("stranger").page(f"/activity/{id}", status=404)


def test_an_id_without_a_record_is_on_its_way_for_a_minute_and_a_half_only(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    owner = signed_in("owner")
    assert "still on its way" in owner.page(f"/activity/{new_id()}", status=404).text
    for old in ("nothing", "0192f0c1-0000-7000-8000-000000000000"):
        told = owner.page(f"/activity/{old}", status=404).text
        assert "still on its way" not in told and "answered with 401 has no record" in told


@pytest.mark.parametrize(
    ("status", "reason", "changes", "headline", "way"),
    [
        (404, "model", {"asked": "gpt-9", "model": ""}, "This key can’t use the model", "Look the model up in the catalogue"),
        (403, "other", {}, "The key may not be used for this", "Change the key’s settings"),
        (401, "other", {}, "The key was not valid", "Change the key’s settings"),
        (400, "other", {"model": ""}, "The request was not accepted", "Correct the request"),
        (503, "other", {}, "The request could not be served", "Try again in a moment"),
    ],
)  # fmt: skip
def test_every_other_cause_has_its_way_out(
    people: People, small: Model, signed_in: SignedIn, status: int, reason: str, changes: dict[str, Any], headline: str,
    way: str,
) -> None:  # fmt: skip
    id = refuse(
        people.owner.id, status=status, reason=reason, scope_kind="", error_message="Not this <one>.", **changes
    )  # fmt: skip
    page = signed_in("owner").page(f"/activity/{id}")
    assert page.alert.heading == headline and "Not this <one>." in page.alert
    assert way in page.section("What you can do").items[0]
    assert "Limit" not in page.section("What stopped it").facts


def test_refused_calls_are_listed_and_counted_everywhere(people: People, small: Model, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="app")
    served = use(people.owner, small, clock.now_ms(), key_id=key)
    refuse(people.owner.id, key_id=key)
    refuse(people.owner.id, key_id=key, refused=4, counted=True)
    refuse("", key_id=None, status=401, error_code="invalid_api_key", refused=9, counted=True, model="")
    owner = signed_in("owner")
    assert len(owner.page("/activity").table("Requests, newest first").rows) == 3
    assert len(owner.page("/activity?status=refused").table("Requests, newest first").rows) == 2
    assert owner.page("/usage").definition("Refused") == "5" and owner.page("/usage").definition("Requests") == "1"
    [kind] = owner.page("/usage").table("Refused requests by their code and status, most frequent first").rows
    assert (kind.cells["Error"], kind.cells["Status"], kind.cells["Requests"]) == ("insufficient_quota", "429", "5")
    assert owner.page(f"/keys/{key}").definition("Refused") == "5"
    assert owner.page("/home").definition("Refused, 7 days") == "5"
    admin = signed_in("admin")
    assert admin.page("/admin/usage").definition("Refused") == "14"
    assert admin.page("/home").section("The whole portal today").facts["Refused today"] == "14"
    rows = admin.page("/admin/activity?status=refused").table("Requests, newest first").rows
    assert [
        row.cells["Key"] for row in rows if "401" in row.cells["Status"] or "invalid_api_key" in row.cells["Status"]
    ] == ["no valid key"]
    assert served


def test_programs_are_told_the_same(app: Flask, people: People, small: Model) -> None:
    key, _ = make_key(people.owner, name="app")
    id = refuse(people.owner.id, key_id=key)
    rate = refuse(people.owner.id, reason="requests", limit=10, retry_ms=6000)
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
    listed = {row["id"]: row for row in owner.get("/api/requests?status=refused").get_json()["data"]}
    assert listed.keys() == {id, rate}
    assert (listed[id]["outcome"], listed[id]["cost"], listed[id]["calls"]) == ("refused", "0", 1)
    assert [row["request_count"] for row in owner.get("/usage/me/day?num_periods=1").get_json()["data"]] == [0]
    [today] = owner.get("/api/requests/stats?groupBy=day").get_json()["data"][-1:]
    assert (today["request_count"], today["refused_count"]) == (0, 2)
    other = owner.get(f"/api/requests/{rate}").get_json()["refusal"]
    assert (other["per_minute"], other["limit"]) == (10, None)
    assert other["frees_at"] > told["at"]
    assert sign_in(app, "admin").get(f"/api/requests/{id}").status_code == 200
    assert sign_in(app, "stranger").get(f"/api/requests/{id}").status_code == 404


def test_a_team_of_which_calls_were_refused_alone_has_pages_all_the_same(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    team = transaction(teams.create, by=people.owner, name="Research")
    key, _ = make_key(people.owner, name="app", team=team)
    refuse(people.owner.id, team_id=team.id, key_id=key, model="", reason="model", scope_kind="", asked="gpt-9")
    owner = signed_in("owner")
    assert owner.page(f"/teams/{team.id}?tab=usage").definition("Refused") == "1"
    [row] = owner.page(f"/teams/{team.id}").table("Last requests").rows
    assert (row.cell("Person"), row.cell("Model")) == ("owner", "gpt-9")
    page = owner.page(f"/keys/{key}")
    assert page.link("Refused").href == f"/activity?key={key}&status=refused"
    assert signed_in("admin").page(f"/keys/{key}").link("Refused").href == f"/admin/activity?key={key}&status=refused"
    [share] = owner.get("/api/usage?groupBy=key").get_json()["data"]
    assert (share["name"], share["request_count"], share["refused_count"], share["cost"]) == ("app", 0, 1, "0")
    [line] = owner.get("/usage?format=json&group=key", buffered=True).get_json()["data"]
    assert (line["requests"], line["refused"]) == (0, 1)
