"""The playground: answers whole and streamed, what a conversation carries, who pays, and what is told when it can't go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from flask import Flask

from app import current, store
from app.domain import budgets, subscriptions, teams
from app.domain.catalog import Model
from app.extensions import transaction
from app.metering.usage import UsageEvent
from app.pages.chats import Turn
from app.workflows import publication
from tests.blueprints.portal.conftest import Browser, subscribe
from tests.house import People, make_model, metered  # noqa: F401
from tests.page import read

Visit = Callable[[str], Browser]


@pytest.fixture
def owner(signed_in: Visit, people: People, small: Model, metered: None) -> Browser:  # noqa: F811
    """The owner, who is subscribed to `small`, with the meter open."""
    subscribe(people.owner, small)
    publication.publish_all()
    return signed_in("owner")


def events(app: Flask) -> list[UsageEvent]:
    with app.app_context():
        return [msgspec.json.decode(found["e"], type=UsageEvent) for _, found in current.redis().xrange(store.USAGE)]


def told(answer: Any) -> list[dict[str, str]]:
    """The events of a streamed answer."""
    return [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]


def turns_in(answer: Any) -> list[str]:
    """The turns that a page carries."""
    inputs = [node.attributes for node in read(answer).node.all_within() if node.tag == "input"]
    return [one["value"] for one in inputs if one.get("name") == "turn"]


def turn(role: Any, text: str) -> str:
    return Turn(role=role, text=text).json


def test_without_scripts_the_page_comes_back_with_the_answer_and_the_conversation(owner: Browser, app: Flask) -> None:
    answer = owner.post(
        "/playground", choice="/small", system="Be brief.", temperature="0.5", text="one **two**", act="send"
    )
    assert answer.status_code == 200
    assert "<strong>two</strong>" in answer.text
    again = [json.loads(one) for one in turns_in(answer)]
    assert [(one["role"], one["text"]) for one in again] == [("user", "one **two**"), ("assistant", "one **two**")]
    (event,) = events(app)
    assert (event.key_id, event.agent, event.prompt_tokens, event.completion_tokens) == (None, "portal", 4, 2)
    assert event.cost_nano == 4 * 1000 + 2 * 2000
    assert again[1]["figures"]["cost_nano"] == event.cost_nano


def test_a_script_gets_the_same_as_a_stream_with_the_message_last(owner: Browser, app: Flask) -> None:
    answer = owner.post("/playground/answers", choice="/small", text="# Title\n\nSome `code`\n\nEnd", act="send")
    assert answer.mimetype == "text/event-stream"
    found = told(answer)
    assert [found[0]["kind"], found[-1]["kind"]] == ["begun", "done"]
    assert "".join(one["text"] for one in found if one["kind"] == "text") == "# Title\n\nSome `code`\n\nEnd"
    assert "<h3>Title</h3>" in next(one["html"] for one in found if one["kind"] == "block")
    assert "<code>code</code>" in found[-1]["html"]
    (event,) = events(app)
    assert (event.stream, event.request_id) == (True, found[0]["id"])


def test_markup_in_questions_answers_and_what_the_page_carries_stays_text(owner: Browser) -> None:
    bad = '<img src=x onerror=alert(1)><script>alert(1)</script> [x](javascript:alert(1)) "><b>'
    whole = owner.post("/playground", choice="/small", text=bad, system=bad, act="send").text
    streamed = owner.post("/playground/answers", choice="/small", text=bad, act="send")
    for html in [whole, *(one.get("html", "") for one in told(streamed))]:
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert 'href="javascript' not in html


def test_the_last_answer_can_be_repeated_and_a_message_changed_or_branched_from(owner: Browser, app: Flask) -> None:
    turns = [turn("user", "first"), turn("assistant", "one"), turn("user", "second"), turn("assistant", "two")]
    again = owner.post("/playground", choice="/small", turn=turns, act="again")
    assert [json.loads(one)["text"] for one in turns_in(again)] == ["first", "one", "second", "second"]
    edited = owner.post("/playground", choice="/small", turn=turns, act="edit-2")
    assert [json.loads(one)["text"] for one in turns_in(edited)] == ["first", "one"]
    assert read(edited).field("Message").value == "second"
    branched = owner.post("/playground", choice="/small", turn=turns, act="branch-1")
    assert [json.loads(one)["text"] for one in turns_in(branched)] == ["first", "one"]
    assert len(events(app)) == 1


def test_tools_are_declared_calls_shown_and_results_typed_in(owner: Browser) -> None:
    tools = '[{"name": "weather", "parameters": {"type": "object"}}]'
    called = owner.post(
        "/playground", choice="/small", text="How is it?", tools=tools, tool_choice="required", act="send"
    )
    message = json.loads(turns_in(called)[-1])
    assert [call["name"] for call in message["calls"]] == ["weather"]
    answered = owner.post(
        "/playground", choice="/small", turn=turns_in(called), tools=tools, result=["Rain"], act="send"
    )
    turns = [json.loads(one) for one in turns_in(answered)]
    assert [one["role"] for one in turns] == ["user", "assistant", "tool", "assistant"]
    assert (turns[2]["text"], turns[2]["call_id"]) == ("Rain", message["calls"][0]["id"])


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"text": " "}, 422, "Enter a message."),
        ({"text": "a", "temperature": "9"}, 422, "from 0 to 2"),
        ({"text": "a", "max_tokens": "many"}, 422, "Enter a number."),
        ({"text": "a", "tools": "[1]"}, 422, "Each tool must be an object."),
        ({"text": "a", "format": "json_schema", "schema": "{"}, 422, "Enter valid JSON."),
        ({"text": "a", "turn": "{}"}, 422, "The conversation can’t be read"),
        ({"text": "a", "choice": "/nowhere"}, 404, "You don’t have access to this model"),
        ({"text": "a", "choice": "x/small"}, 404, "not exist"),
        ({"act": "again"}, 422, "nothing to repeat"),
        ({"act": "edit-9"}, 422, "no longer there"),
    ],
)
def test_what_is_wrong_is_told_with_everything_still_filled_in(
    owner: Browser, app: Flask, form: dict[str, Any], status: int, words: str
) -> None:
    sent = {"choice": "/small", "act": "send", "system": "Be brief.", **form}
    for path in ("/playground", "/playground/answers"):
        if sent["act"] == "edit-9" and path != "/playground":
            continue
        answer = owner.post(path, **sent)
        assert (answer.status_code, answer.mimetype) == (status, "text/html")
        assert words.replace("’", "'") in answer.text.replace("’", "'").replace("&#39;", "'")
    assert events(app) == []


def test_a_spent_budget_leads_to_the_request_for_more(owner: Browser, people: People) -> None:
    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="0.000001", period="month")
    publication.publish_all()
    answer = owner.post("/playground", choice="/small", text="one two three", act="send")
    assert answer.status_code == 429
    page = read(answer)
    assert page.link("Request an increase").href == "/budgets/user/owner"
    assert page.field("Message").value == "one two three"
    estimate = owner.post("/playground/estimates", choice="/small", text="one two three")
    assert "Not enough budget left" in estimate.text


def test_what_a_request_may_cost_is_told_before_it_is_sent(owner: Browser, app: Flask) -> None:
    shown = owner.post("/playground/estimates", choice="/small", text="one", max_tokens="10")
    assert "At most 0.0" in shown.text and "USD" in shown.text
    assert "At most 0.0" in owner.post("/playground", choice="/small", text="one", max_tokens="10", act="estimate").text
    assert events(app) == []


def test_a_team_pays_where_it_is_chosen(
    signed_in: Visit, owner: Browser, people: People, small: Model, app: Flask
) -> None:
    team = transaction(lambda: teams.create(by=people.owner, name="Research"))
    transaction(subscriptions.request, people.owner, small, by=people.owner, team=team)
    publication.publish_all()
    assert "Team Research" in owner.get("/playground").text
    assert owner.post("/playground", choice=f"{team.id}/small", text="one", act="send").status_code == 200
    assert [event.team_id for event in events(app)] == [team.id]
    assert signed_in("stranger").post("/playground", choice=f"{team.id}/small", text="a", act="send").status_code == 404


def test_a_model_of_the_url_is_chosen_or_leads_to_its_page(owner: Browser, signed_in: Visit) -> None:
    assert 'value="/small" selected' in owner.get("/playground?model=small").text
    assert owner.page("/playground?model=other").link("Subscribe or request access").href == "/models/other?tab=access"
    assert "No model to talk to yet" in signed_in("stranger").get("/playground").text


def test_the_same_call_is_shown_for_programs(owner: Browser) -> None:
    shown = owner.post("/playground/code", choice="/small", system="It's", text='50% "off"', temperature="0.5").text
    page = read(shown)
    assert "'\"'\"'" in page.code("curl")  # the quote within the shell's quotes
    assert "temperature=0.5" in page.code("Python")
    assert '"content": "50% \\"off\\""' in page.code("JavaScript")
    assert "chat.completions" in owner.post("/playground", choice="/small", text="a", act="code").text
    assert "There is nothing to repeat yet." in owner.post("/playground/code", choice="/small").text


def test_models_are_compared_by_one_message_each_at_its_own_cost(owner: Browser, people: People, app: Flask) -> None:
    other = transaction(make_model, None, "other", price={"input_per_mtok": "10", "output_per_mtok": "20"})
    subscribe(people.owner, other)
    publication.publish_all()
    page = read(owner.post("/playground/compare", compared=["/small", "/other"], text="one two"))
    assert page.section("small") and page.section("other")
    assert [event.cost_nano for event in sorted(events(app), key=lambda one: one.model)] == [60_000, 6_000]
    few = owner.post("/playground/compare", compared=["/small"], text="one two")
    assert (few.status_code, "Choose 2 to 4 models." in few.text) == (422, True)
    one_missing = owner.post("/playground/compare", compared=["/small", "/nowhere"], text="one")
    assert one_missing.status_code == 200
    assert "You don’t have access to this model" in one_missing.text
    assert len(events(app)) == 3


def test_a_conversation_is_a_file(owner: Browser) -> None:
    turns = [turn("user", "first"), turn("assistant", "**one**")]
    sent = {"choice": "/small", "system": "Be brief.", "turn": turns}
    assert "## You\n\nfirst\n\n## small\n\n**one**" in owner.post("/playground", **sent, act="export-markdown").text
    told_of = owner.post("/playground", **sent, act="export-json")
    assert [one["role"] for one in told_of.get_json()["messages"]] == ["system", "user", "assistant"]
