"""Models in the management API: what a picture may count, and a restriction's effect on those who have access."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from app.domain import catalog
from app.workflows import publication
from tests.house import People, Program, offer, sign_in


def test_what_a_picture_and_audio_may_count_is_kept_and_taken_back(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    assert admin.get("/api/models/small").get_json()["image_tokens"] is None
    changed = admin.put("/api/models/small", json={"image_tokens": 1200, "audio_tokens": 1})
    assert (changed.get_json()["image_tokens"], changed.get_json()["audio_tokens"]) == (1200, 1)
    assert admin.put("/api/models/small", json={"description": "x"}).get_json()["image_tokens"] == 1200
    assert admin.put("/api/models/small", json={"image_tokens": None}).get_json()["image_tokens"] is None
    refused = admin.put("/api/models/small", json={"audio_tokens": 0})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "audio_tokens")


def test_instructions_of_embeddings_are_kept_taken_back_and_published(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    offer(app)

    def put(instructions: Any) -> Any:
        return admin.put("/api/models/small", json={"embedding_instructions": instructions})

    none = {"query": None, "passage": None}
    assert admin.get("/api/models/small").get_json()["embedding_instructions"] == none
    assert put({"passage": "passage: "}).get_json()["embedding_instructions"] == none | {"passage": "passage: "}
    changed = put({"query": " query: {text}\n"}).get_json()
    assert changed["embedding_instructions"] == none | {"query": "query: {text}"}
    kept = admin.put("/api/models/small", json={"description": "x"}).get_json()
    assert kept["embedding_instructions"] == changed["embedding_instructions"]
    with app.app_context():
        assert publication.model_record(catalog.model("small")).query_instruction == "query: {text}"
    for instruction in ("{text} {text}", "{text}" + "x" * 4000):
        refused = put({"passage": instruction})
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "embedding_instructions.passage")
    assert put({"question": "x"}).status_code == 422
    for nothing in (None, {}, {"query": " "}):
        put({"query": "query: {text}"})
        assert put(nothing).get_json()["embedding_instructions"] == none


def test_a_restriction_by_a_program_turns_access_pending_too(app: Flask, people: People) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    offer(app)
    id = owner.post("/api/subscriptions", json={"model": "small"}).get_json()["id"]
    assert admin.put("/api/models/small", json={"restricted": False}).status_code == 200
    assert owner.get(f"/api/subscriptions/{id}").get_json()["status"] == "active"
    assert admin.put("/api/models/small", json={"restricted": True}).status_code == 200
    told = owner.get(f"/api/subscriptions/{id}").get_json()
    assert told["status"] == "pending"
    assert [step["status"] for step in told["timeline"]] == ["active", "pending"]


def amounts(admin: Program, **given: str) -> dict[str, str | None]:
    """A whole price as it is told."""
    return dict.fromkeys(admin.get("/api/models/small").get_json()["price"]) | given


def test_a_price_with_a_time_is_planned_for_it_and_leaves_todays_alone(
    app: Flask, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    before = admin.get("/api/models/small").get_json()["price"]
    planned = {"input_per_mtok": "3", "from": "2099-01-01T00:00:00Z"}
    answer = admin.put("/api/models/small", json={"description": "x", "price": planned})
    assert answer.status_code == 200, answer.text
    told = admin.get("/api/models/small").get_json()
    assert (told["price"], told["description"]) == (before, "x")
    assert told["planned_prices"] == [{**amounts(admin, input_per_mtok="3"), "from": "2099-01-01T00:00:00Z"}]
    assert admin.get("/api/audit?action=price.set").get_json()["total"] == 1
    # for the same instant the later plan counts, and today's price is changed beside it
    admin.put("/api/models/small", json={"price": {**planned, "input_per_mtok": "4"}})
    admin.put("/api/models/small", json={"price": {"input_per_mtok": "2"}})
    told = admin.get("/api/models/small").get_json()
    assert told["price"] == amounts(admin, input_per_mtok="2")
    assert [one["input_per_mtok"] for one in told["planned_prices"]] == ["4"]
    monkeypatch.setattr("app.clock.now_ns", lambda: 4_070_908_800 * 10**9)  # 2099-01-01
    with app.app_context():
        item = catalog.model("small")
        assert item.price is not None and item.price.decimals()["input_per_mtok"] == "4"
        assert item.planned_prices == []


def test_a_model_may_be_made_with_a_price_to_come(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    price = {"per_request": "1", "from": "2099-01-01T00:00:00+01:00"}
    made = admin.post("/api/models", json={"name": "later", "capabilities": ["chat"], "price": price})
    assert made.status_code == 201, made.text
    assert made.get_json()["price"] is None
    assert made.get_json()["planned_prices"][0]["from"] == "2098-12-31T23:00:00Z"


@pytest.mark.parametrize("since", ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00", "soon", 5])
def test_a_price_of_the_past_or_of_no_time_is_refused(app: Flask, people: People, since: object) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    before = admin.get("/api/models/small").get_json()
    refused = admin.put("/api/models/small", json={"price": {"input_per_mtok": "3", "from": since}})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "price.from")
    refused = admin.post("/api/models", json={"name": "m", "price": {"from": since}, "capabilities": ["chat"]})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "price.from")
    assert admin.get("/api/models/small").get_json() == before


def test_a_price_replaces_the_whole_price_with_its_tiers_and_long_prompts(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    bands = {
        "tiers": {"flex": {"input_per_mtok": "0.5"}},
        "long_context": {"above_prompt_tokens": 200_000, "input_per_mtok": "2"},
    }

    def put(price: object) -> dict[str, Any]:
        answer = admin.put("/api/models/small", json={"price": price})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.get_json()["price"]
        return told

    told = put({"input_per_mtok": "1", **bands})
    assert {name: told[name] for name in bands} == bands
    assert put(told) == told, "what GET tells can be sent back"
    assert put({"input_per_mtok": "1", "tiers": bands["tiers"]})["long_context"] is None
    put({"input_per_mtok": "1", **bands})
    assert put({"input_per_mtok": "1", "tiers": None, "long_context": None}) == amounts(admin, input_per_mtok="1")
    put({"input_per_mtok": "1", **bands})
    assert put({"input_per_mtok": "1"}) == amounts(admin, input_per_mtok="1")
    put({"input_per_mtok": "1", **bands})
    assert put(None) == amounts(admin)


@pytest.mark.parametrize(
    ("price", "field"),
    [
        ('{"per_image": 1' + "0" * 4000 + "}", "price.per_image"),
        ('{"per_image": 1' + "0" * 5000 + "}", None),
        ('{"tiers": {"' + "x" * 9000 + '": {"per_image": "x"}}}', "price.tiers"),
        ('{"tiers": {"flex": {"per_image": "x"}}}', "price.tiers.flex.per_image"),
        ('{"tiers": {"flex": {}}}', "price.tiers.flex"),
        ('{"long_context": {"above_prompt_tokens": 5}}', "price.long_context"),
        ('{"long_context": {"above_prompt_tokens": 1' + "0" * 4000 + ', "per_image": 1}}', None),
    ],
    ids=lambda value: None if value is None else value[:30],
)
def test_a_band_that_cannot_be_used_is_refused_by_a_short_name(
    app: Flask, people: People, price: str, field: str | None
) -> None:
    admin = sign_in(app, "admin")
    offer(app)
    before = admin.get("/api/models/small").get_json()
    body = '{"price": ' + price + "}"
    refused = admin.put("/api/models/small", data=body, headers={"Content-Type": "application/json"})
    assert refused.status_code in ((422,) if field else (400, 422)), refused.text
    error = refused.get_json()["error"]
    assert field is None or error["field"] == field
    assert len(refused.text) < 1000
    assert admin.get("/api/models/small").get_json() == before
