"""Calls without a key: metered and charged as any other, with errors in the management API's own shape."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from flask import Flask

from app import current, store
from app.metering import money
from app.metering.usage import UsageEvent
from app.workflows import publication
from tests.house import People, metered, offer, sign_in  # noqa: F401

RUN = "/api/inference/run"


@pytest.fixture
def served(app: Flask, people: People, metered: None) -> Any:  # noqa: F811
    """The owner's way to the model `small`, with the meter open."""
    offer(app)
    owner = sign_in(app, "owner")
    assert owner.post("/api/subscriptions", json={"model": "small"}).status_code == 201
    with app.app_context():
        publication.publish_all()
    return owner


def test_a_prompt_is_answered_and_booked_like_any_call(app: Flask, served: Any) -> None:
    told = served.post(RUN, json={"model": "small", "prompt": "one two three"})
    assert told.status_code == 200, told.text
    answer = told.get_json()
    assert (answer["output"], answer["finish_reason"], answer["model"]) == ("one two three", "stop", "small")
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert answer["cost"] == money.text(3 * 1000 + 3 * 2000)


def test_parameters_messages_and_who_pays_are_taken(served: Any, app: Flask) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]
    told = served.post(RUN, json={"model": "small", "messages": messages, "parameters": {"max_tokens": 2, "n": 2}})
    answer = told.get_json()
    assert (answer["output"], answer["finish_reason"]) == ("one two", "length")
    assert answer["usage"]["completion_tokens"] == 4


def events(app: Flask) -> list[UsageEvent]:
    with app.app_context():
        return [msgspec.json.decode(found["e"], type=UsageEvent) for _, found in current.redis().xrange(store.USAGE)]


def test_it_is_metered_as_the_person_without_a_key(served: Any, app: Flask, people: People) -> None:
    id = served.post(RUN, json={"model": "small", "prompt": "one two three"}).get_json()["id"]
    (event,) = events(app)
    assert (event.request_id, event.key_id, event.person_id) == (id, None, people.owner.id)
    assert [scope[0] for scope in event.scopes] == ["subscription", "user", "organisation"]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"model": "nowhere", "prompt": "a"}, 404, "model_not_found", "model"),
        ({"model": "small"}, 422, "invalid_field", "prompt"),
        ({"model": "small", "prompt": "a", "messages": []}, 422, "invalid_field", "prompt"),
        ({"model": "small", "messages": []}, 422, "invalid_field", "messages"),
        ({"model": "small", "messages": [{"role": "x"}]}, 422, "invalid_field", "messages[0].role"),
        ({"model": "small", "prompt": "a", "parameters": {"temperature": 9}}, 422, "invalid_field", "parameters.temperature"),
        ({"model": "small", "prompt": "a", "parameters": {"stream": True}}, 422, "invalid_field", "parameters.stream"),
        ({"model": "small", "prompt": "a", "team_id": "nowhere"}, 404, "not_found", None),
        ({"model": "small", "prompt": "a", "more": 1}, 422, "invalid_field", "more"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_the_management_envelope(
    served: Any, app: Flask, body: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    told = served.post(RUN, json=body)
    error = told.get_json()["error"]
    assert (told.status_code, error["code"], error["field"]) == (status, code, field)
    assert events(app) == []


def test_a_spent_budget_stops_it(served: Any, app: Flask, people: People) -> None:
    budget = {"limit": "0.000001", "period": "month"}
    assert sign_in(app, "admin").put("/api/budgets/user/owner", json=budget).status_code == 200
    with app.app_context():
        publication.publish_all()
    told = served.post(RUN, json={"model": "small", "prompt": "a"})
    assert (told.status_code, told.get_json()["error"]["code"]) == (429, "insufficient_quota")
    assert told.headers["Retry-After"].isdecimal()
    assert told.headers["x-should-retry"] == "false"


def test_nobody_spends_another_teams_money(served: Any, app: Flask, people: People) -> None:
    team = sign_in(app, "admin").post("/api/teams", json={"name": "Research"}).get_json()["id"]
    assert served.post(RUN, json={"model": "small", "prompt": "a", "team_id": team}).status_code == 404
