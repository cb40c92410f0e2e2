"""The Connect page: a block for the client, key and model that a person picks, and whether its first call has arrived."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis

from app import clock, store
from app.clock import now, to_ms
from app.domain import catalog, keys, subscriptions, teams
from app.domain.catalog import Model
from app.extensions import db, transaction
from app.metering.usage import LastCall
from tests.blueprints.portal.conftest import Browser, make_key, make_model, subscribe, use
from tests.conftest import SetClock
from tests.house import People
from tests.page import Page, read

SignedIn = Callable[[str], Browser]


def note(wire: redis.Redis, key_id: str, agent: str | None, status: int = 200, **fields: Any) -> None:
    """What the gateway notes of a call."""
    told = {"request_id": "r-1", "at_ms": clock.now_ms(), "agent": agent, "status": status, **fields}
    outcome = "ok" if status == 200 else "refused"
    wire.hset(
        store.last_calls(key_id), f"{outcome}:{agent or ''}", msgspec.json.encode(msgspec.convert(told, LastCall))
    )


@pytest.fixture
def key_id(people: People, small: Model) -> str:
    """The owner's key, which can call `small`."""
    subscribe(people.owner, small)
    return make_key(people.owner, name="laptop")[0]


def looks_on(page: Page) -> bool:
    """Whether the page goes on looking for the first call."""
    [place] = [node for node in page.node.within if node.attributes.get("id") == "first-call"]
    return "data-refresh" in place.attributes


def test_without_a_key_or_a_model_the_page_says_what_to_do_first(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    owner = signed_in("owner")
    page = owner.page("/connect")
    assert page.empty.links[0].href == "/models" and "No key yet" in page.headings
    subscribe(people.owner, small)
    assert owner.page("/connect").link("Create a key").href == "/keys/new?model=small"
    stranger = signed_in("stranger")
    make_key(people.stranger)
    assert "No model yet" in stranger.page("/connect").headings


def test_the_block_names_the_picked_key_and_model(people: People, key_id: str, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    other = transaction(make_model, people.admin, "vendor/large", context_window=64_000)
    subscribe(people.owner, other)
    page = owner.page("/connect?client=codex")
    assert (page.field("Key").chosen, page.field("Model").choices) == (["laptop"], ["small", "vendor/large"])
    assert 'model = "small"' in page.code("Codex")
    picked = owner.page(f"/connect?client=codex&key={key_id}&model=vendor/large")
    assert 'model = "vendor/large"' in picked.code("Codex")
    assert "model_context_window = 64000" in picked.code("Codex")
    small = owner.page(f"/connect?client=claude-code&key={key_id}&model=vendor/large&small=small")
    assert "ANTHROPIC_DEFAULT_HAIKU_MODEL=small" in small.code("Claude Code")


def test_a_secret_is_never_on_the_page(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    id, secret = make_key(people.owner)
    for client in ("claude-code", "codex", "opencode", "curl"):
        assert secret not in signed_in("owner").get(f"/connect?key={id}&client={client}").text


def test_a_model_leads_to_a_key_that_can_call_it(people: People, key_id: str, signed_in: SignedIn) -> None:
    other = transaction(make_model, people.admin, "other")
    subscribe(people.owner, other)
    make_key(people.owner, name="narrow", models=["small"])
    owner = signed_in("owner")
    assert owner.page("/connect?client=codex&model=other").field("Key").chosen == ["laptop"]
    link = owner.page("/models/other?tab=quickstart").link("Connect a client")
    assert link.href == "/connect?model=other"


def test_a_model_that_the_key_cannot_call_is_told_with_the_way_to_it(
    people: People, key_id: str, guarded: Model, signed_in: SignedIn
) -> None:
    page = signed_in("owner").page(f"/connect?client=codex&key={key_id}&model=lab/guarded")
    assert page.alert.heading == "This key can’t call lab/guarded"
    assert page.alert.links[0].href == "/models/lab/guarded?tab=access"
    assert 'model = "small"' in page.code("Codex")


def test_a_model_that_does_not_chat_suits_code_and_no_agent(people: People, key_id: str, signed_in: SignedIn) -> None:
    subscribe(people.owner, transaction(make_model, people.admin, "vectors", capabilities=["embeddings"]))
    owner = signed_in("owner")
    assert owner.page(f"/connect?client=codex&key={key_id}").field("Model").choices == ["small"]
    assert "vectors doesn’t suit Codex" in owner.page(f"/connect?client=codex&key={key_id}&model=vectors").headings
    assert "/v1/embeddings" in owner.page(f"/connect?client=curl&key={key_id}&model=vectors").code("curl")


def test_a_key_whose_scopes_forbid_it_is_told(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    subscribe(people.owner, transaction(make_model, people.admin, "vectors", capabilities=["embeddings"]))
    id, _ = make_key(people.owner, scopes=["embeddings"])
    owner = signed_in("owner")
    page = owner.page(f"/connect?client=claude-code&key={id}")
    assert "This key may not be used for this" in page.headings
    assert page.link("Change key").href == f"/keys/{id}/settings"
    assert "/v1/embeddings" in owner.page(f"/connect?client=curl&key={id}&model=vectors").code("curl")


def test_a_key_of_models_without_a_subscription_is_told(people: People, small: Model, signed_in: SignedIn) -> None:
    subscription = subscribe(people.owner, small)
    id, _ = make_key(people.owner, models=["small"])
    found = db.session.get_one(subscriptions.Subscription, subscription)
    transaction(subscriptions.cancel, found, by=people.owner)
    page = signed_in("owner").page(f"/connect?key={id}")
    assert "This key can’t call any model" in page.headings
    assert page.link("Change key").href == f"/keys/{id}/settings"


def test_a_paused_key_and_a_model_without_a_provider_are_told(
    people: People, key_id: str, small: Model, signed_in: SignedIn
) -> None:
    transaction(keys.pause, db.session.get_one(keys.ApiKey, key_id), by=people.owner)
    page = signed_in("owner").page(f"/connect?key={key_id}")
    assert page.alert.heading == "This key is paused"
    transaction(catalog.update_model, db.session.get_one(Model, small.id), by=None, deployments=[])
    headings = [alert.heading for alert in signed_in("owner").page(f"/connect?key={key_id}").alerts]
    assert "No provider serves small at the moment" in headings


def test_the_page_turns_green_at_the_clients_first_call_and_stops_looking(
    people: People, key_id: str, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    owner, path = signed_in("owner"), f"/connect?client=claude-code&key={key_id}"
    waiting = owner.page(path)
    assert looks_on(waiting) and "Waiting for the first call of Claude Code with laptop." in waiting
    note(wire, key_id, "curl")
    assert "The key works in curl." in owner.page(path)
    note(wire, key_id, "claude-code", request_id="r-2")
    arrived = owner.page(path)
    assert (arrived.alert.level, arrived.alert.heading) == ("success", "Claude Code is connected")
    assert looks_on(arrived), "the link to the request is still to come"
    use(people.owner, small, clock.now_ms(), key_id=key_id, request_id="r-2")
    done = owner.page(path)
    assert done.alert.link("See the request").href == "/activity/r-2"
    assert not looks_on(done)


@pytest.mark.parametrize(
    ("status", "code", "href"),
    [
        (404, "model_not_found", "/models"),
        (403, "insufficient_scope", "/keys/{key}/settings"),
        (429, "insufficient_quota", "/budgets"),
        (429, "rate_limit_exceeded", "/keys/{key}/settings"),
        (404, None, "/reference"),
    ],
)
def test_a_refused_call_is_shown_with_its_reason_and_a_way_out(
    key_id: str, wire: redis.Redis, signed_in: SignedIn, status: int, code: str | None, href: str
) -> None:
    note(wire, key_id, "codex", status, code=code, message="It was not to be.")
    page = signed_in("owner").page(f"/connect?client=codex&key={key_id}")
    assert (page.alert.level, page.alert.heading) == ("danger", "A call with laptop failed")
    assert "It was not to be." in page.alert
    assert page.alert.hrefs == [href.replace("{key}", key_id)]
    assert looks_on(page), "people try again"


def test_a_refusal_after_the_first_call_is_shown_beside_it(
    people: People, key_id: str, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    use(people.owner, small, clock.now_ms(), key_id=key_id, request_id="r-2")
    note(wire, key_id, "codex", request_id="r-2")
    note(wire, key_id, "codex", 502, message="The provider is ill.")
    page = signed_in("owner").page(f"/connect?client=codex&key={key_id}")
    assert [alert.level for alert in page.alerts] == ["success", "danger"]


def test_the_part_that_looks_ends_after_a_while(key_id: str, signed_in: SignedIn, set_clock: SetClock) -> None:
    set_clock(now())
    owner, until = signed_in("owner"), to_ms(now() + timedelta(minutes=15))
    path = f"/connect/first-call?client=codex&key={key_id}&until={until}"
    part = owner.get(path, fragment=True)
    assert "data-refresh" in part.text and "<html" not in part.text
    set_clock(now() + timedelta(minutes=16))
    over = read(owner.get(path, fragment=True))
    assert over.link("Look again").href == f"/connect?client=codex&key={key_id}"
    assert "data-refresh" not in owner.get(f"{path}0", fragment=True).text, "nobody makes it look for ever"
    assert "data-refresh" not in owner.get(path.replace(str(until), "x"), fragment=True).text


def test_the_part_alone_leads_browsers_to_the_page(key_id: str, signed_in: SignedIn) -> None:
    answer = signed_in("owner").get(f"/connect/first-call?client=codex&key={key_id}&_external=1&_scheme=javascript")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/connect?client=codex&key={key_id}")


def test_a_key_of_ones_team_connects_with_the_teams_models(people: People, small: Model, signed_in: SignedIn) -> None:
    team = transaction(teams.create, by=people.owner, name="Research")
    transaction(subscriptions.request, people.owner, small, by=people.owner, team=team)
    id, _ = make_key(people.owner, name="shared", team=team)
    page = signed_in("owner").page(f"/connect?client=codex&key={id}")
    assert page.field("Key").choices == ["shared (Research)"]
    assert page.field("Model").choices == ["small"]


def test_somebody_elses_key_is_not_there_but_for_admins(key_id: str, signed_in: SignedIn) -> None:
    assert signed_in("stranger").get(f"/connect?key={key_id}").status_code == 404
    assert signed_in("admin").page(f"/connect?key={key_id}&client=codex").field("Key").chosen == ["laptop"]


def test_the_page_that_shows_a_secret_once_has_each_clients_block_with_it(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, small)
    owner = signed_in("owner")
    once = owner.page("/keys/new").form("/keys").sends["once"]
    form = {"once": once, "name": "laptop", "reach": "all", "lifetime": "never", "period": "month", "timezone": "UTC"}
    made = read(owner.secret_page(owner.post("/keys", page="/keys/new", routing="free", **form)))
    secret = made.section("laptop").codes[0]
    clients = made.section("Clients")
    assert f"ANTHROPIC_AUTH_TOKEN={secret}" in clients.code("Claude Code")
    assert secret in clients.code("OpenCode")
    assert made.link("Connect a client").href.startswith("/connect?key=")


def test_every_place_of_keys_leads_here(key_id: str, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert owner.page("/keys").link("Connect a client").href == "/connect"
    assert owner.page(f"/keys/{key_id}").link("Connect").href == f"/connect?key={key_id}"
