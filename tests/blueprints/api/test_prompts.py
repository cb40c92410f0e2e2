"""Prompts over the API: whose they are, their versions, and calls by them here and at /v1."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from app import current
from app.gateway import prompts as gateway
from app.workflows import publication
from tests.blueprints.api.test_inference import RUN, events, served  # noqa: F401
from tests.house import People, metered, sign_in  # noqa: F401

PROMPTS = "/api/prompts"
TEMPLATE = "Translate {{ text }} into {{language}}: {{text}}"


@pytest.fixture
def owner(app: Flask, people: People) -> Any:
    return sign_in(app, "owner")


def create(who: Any, **values: Any) -> Any:
    told = who.post(PROMPTS, json={"name": "Translate", "template": TEMPLATE, **values})
    assert told.status_code == 201, told.text
    return told.get_json()


def test_a_prompt_has_its_variables_in_order_and_grows_by_versions(owner: Any) -> None:
    made = create(owner, description="For letters.", model="small")
    assert (made["input_variables"], made["version"], made["owner"], made["team_id"]) == (
        ["text", "language"],
        1,
        "owner",
        None,
    )
    path = f"{PROMPTS}/{made['id']}"
    assert owner.patch(path, json={"name": "Letters"}).get_json()["version"] == 1
    assert owner.patch(path, json={"template": "Say {{text}}"}).get_json()["version"] == 2
    changed = owner.put(path, json={**owner.get(path).get_json(), "model": None})
    assert (changed.get_json()["version"], changed.get_json()["name"]) == (3, "Letters")
    rows = owner.get(f"{path}/versions").get_json()["data"]
    assert [(row["version"], row["template"], row["model"]) for row in rows] == [
        (3, "Say {{text}}", None), (2, "Say {{text}}", "small"), (1, TEMPLATE, "small"),
    ]  # fmt: skip
    assert owner.delete(path).status_code == 204
    assert owner.get(path).status_code == 404


def test_names_are_unique_for_their_owner_alone(owner: Any, app: Flask) -> None:
    made = create(owner)
    create(sign_in(app, "stranger"))
    assert owner.post(PROMPTS, json={"name": "Translate", "template": "x"}).status_code == 409
    other = create(owner, name="Another")
    assert owner.patch(f"{PROMPTS}/{other['id']}", json={"name": "Translate"}).status_code == 409
    assert [row["id"] for row in owner.get(f"{PROMPTS}?search=anoth").get_json()["data"]] == [other["id"]]
    assert made["id"] in [row["id"] for row in owner.get(PROMPTS).get_json()["data"]]


def test_a_stranger_and_an_admin_find_nothing_and_a_team_shares(owner: Any, app: Flask, people: People) -> None:
    mine = create(owner)["id"]
    for username in ("stranger", "admin"):
        who = sign_in(app, username)
        assert who.get(f"{PROMPTS}/{mine}").status_code == 404
        assert who.delete(f"{PROMPTS}/{mine}").status_code == 404
        assert who.get(PROMPTS).get_json()["data"] == []
    team = owner.post("/api/teams", json={"name": "Research"}).get_json()["id"]
    shared = create(owner, team_id=team)["id"]
    stranger = sign_in(app, "stranger")
    assert stranger.post(PROMPTS, json={"name": "a", "template": "b", "team_id": team}).status_code == 404
    assert sign_in(app, "admin").put(f"/api/teams/{team}/members/stranger", json={}).status_code in (200, 201)
    assert stranger.get(f"{PROMPTS}/{shared}").status_code == 200
    assert stranger.patch(f"{PROMPTS}/{shared}", json={"template": "c"}).status_code == 403
    theirs = create(stranger, name="Mine", team_id=team)["id"]
    assert owner.patch(f"{PROMPTS}/{theirs}", json={"template": "c"}).get_json()["version"] == 2
    assert owner.put(f"{PROMPTS}/{theirs}", json={"name": "a", "template": "b", "team_id": None}).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "template": "a"}, "name"),
        ({"name": "a" * 101, "template": "a"}, "name"),
        ({"name": "a", "template": " "}, "template"),
        ({"name": "a\u0000", "template": "a"}, "name"),
        ({"name": "a", "template": "a\u0000"}, "template"),
        ({"name": "a", "template": "a", "variables": []}, "variables"),
        ({"template": "a"}, "name"),
    ],
)
def test_what_is_wrong_is_named(owner: Any, body: dict[str, Any], field: str) -> None:
    told = owner.post(PROMPTS, json=body)
    assert (told.status_code, told.get_json()["error"]["field"]) == (422, field)


def test_a_run_by_a_prompt_bears_it_in_the_answer_the_history_and_usage(served: Any, app: Flask) -> None:  # noqa: F811
    made = create(served, template="{{a}} and {{b}}", model="small")
    asked = {"prompt_id": made["id"], "variables": {"a": "one", "b": 2}}
    told = served.post(RUN, json={**asked, "store": True}).get_json()
    assert (told["output"], told["prompt_id"], told["version"], told["model"]) == ("one and 2", made["id"], 1, "small")
    served.patch(f"{PROMPTS}/{made['id']}", json={"template": "only {{a}}"})
    assert served.post(RUN, json={"prompt_id": made["id"], "variables": {"a": "x"}}).get_json()["output"] == "only x"
    assert served.post(RUN, json={**asked, "version": 1}).get_json()["version"] == 1
    assert [event.tags for event in events(app)] == [gateway.tags_of(made["id"], version) for version in (1, 2, 1)]
    rows = served.get("/api/inference/history").get_json()["data"]
    assert [(row["input"], row["output"], row["version"]) for row in rows] == [
        (None, None, 1), (None, None, 2), ("one and 2", "one and 2", 1),
    ]  # fmt: skip
    for wrong, field in (
        ({"variables": {"a": "x", "b": "y"}, "version": 9}, "version"),
        ({"variables": {"a": "x"}, "version": 1}, "variables.b"),
        ({"variables": {"a": "x", "c": "y"}}, "variables.c"),
        ({"prompt": "x"}, "prompt"),
    ):
        refused = served.post(RUN, json={"prompt_id": made["id"], **wrong})
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)


def test_history_is_one_s_own_and_cleared_by_its_owner(served: Any, app: Flask) -> None:  # noqa: F811
    stored = served.post(RUN, json={"model": "small", "prompt": "keep this", "store": True}).get_json()
    messages = [{"role": "user", "content": "and this"}]
    served.post(RUN, json={"model": "small", "messages": messages, "store": True})
    newest, oldest = served.get("/api/inference/history").get_json()["data"]
    assert newest["input"] == messages
    assert oldest == {
        "id": stored["id"], "at": oldest["at"], "model": "small", "prompt_id": None, "version": None, "input": "keep this",
        "output": "keep this", "usage": stored["usage"], "cost": stored["cost"], "status": 200,
    }  # fmt: skip
    found = served.get("/api/inference/history?search=keep").get_json()["data"]
    assert [row["id"] for row in found] == [stored["id"]]
    assert sign_in(app, "admin").get("/api/inference/history").get_json()["data"] == []
    assert served.delete("/api/inference/history").status_code == 204
    assert served.get("/api/inference/history").get_json()["total"] == 0
    assert len(events(app)) == 2


def test_a_prompt_reaches_the_gateway_with_its_next_version_and_leaves_it(
    owner: Any, app: Flask, people: People
) -> None:
    made = create(owner, model="small")
    name = f"{{org:default}}:prompt:{made['id']}"
    with app.app_context():
        assert sorted(current.redis().hkeys(name)) == ["1", "latest", "owner"]
        owner.patch(f"{PROMPTS}/{made['id']}", json={"template": "Say {{text}}"})
        assert "Say" in current.redis().hget(name, "latest")
        current.redis().delete(name)
        current.redis().hset("{org:default}:prompt:gone", "owner", "{}")
        publication.publish_all()
        assert sorted(current.redis().hkeys(name)) == ["1", "2", "latest", "owner"]
        assert not current.redis().exists("{org:default}:prompt:gone")
        owner.delete(f"{PROMPTS}/{made['id']}")
        assert not current.redis().exists(name)
