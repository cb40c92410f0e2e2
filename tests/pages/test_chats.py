"""What a conversation of the playground asks a model, and what is said when it can't."""

from __future__ import annotations

import io
from typing import Any

import pytest
from werkzeug.datastructures import FileStorage, MultiDict

from app.domain.errors import Invalid
from app.gateway.errors import ApiError
from app.pages.chats import LARGEST_IMAGES, MOST_TURNS, Draft, Turn, draft_of, trouble_of
from app.workflows.chats import ToolCall
from app.workflows.inference import Refused

IMAGE = "data:image/png;base64,AAAA"


def test_a_conversation_is_asked_as_chat_completions_take_it() -> None:
    turns = (
        Turn(role="user", text="What is this?", images=[IMAGE]),
        Turn(role="assistant", text="", reasoning="Hm.", calls=[ToolCall(id="c1", name="look", arguments="{}")]),
        Turn(role="tool", text="A cat", call_id="c1"),
    )
    draft = Draft(
        "team/small", "Be brief.", {"temperature": "0.5", "max_tokens": "10"}, "END\nSTOP\n", "json_object", turns=turns
    )
    assert (draft.team_id, draft.model) == ("team", "small")
    assert draft.body() == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": IMAGE}},
                ],
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "A cat"},
        ],
        "temperature": 0.5,
        "max_tokens": 10,
        "stop": ["END", "STOP"],
        "response_format": {"type": "json_object"},
    }


def test_a_model_s_name_may_hold_slashes_and_a_team_may_be_missing() -> None:
    assert (Draft("/lab/small").team_id, Draft("/lab/small").model) == (None, "lab/small")


def test_an_uploaded_image_becomes_a_part_of_the_message() -> None:
    file = FileStorage(io.BytesIO(b"\0\0\0"), "a.png", content_type="image/png")
    draft = draft_of(MultiDict({"text": "What?\r\nThis."}), [file]).with_question()
    assert draft.turns == (Turn(role="user", text="What?\nThis.", images=[IMAGE]),)


@pytest.mark.parametrize(
    ("form", "files", "field"),
    [
        ({"turn": ['{"role": "system"}']}, [], "text"),
        ({"turn": ['{"role": "user", "images": ["https://example.org/x.png"]}']}, [], "text"),
        ({"turn": ['{"role": "user"}'] * (MOST_TURNS + 1)}, [], "text"),
        ({"image": [IMAGE] * 9}, [], "images"),
        ({"image": ["data:image/png;base64," + "A" * LARGEST_IMAGES]}, [], "images"),
        ({}, [FileStorage(io.BytesIO(b"<svg/>"), "a.svg", content_type="image/svg+xml")], "images"),
    ],
)
def test_what_a_browser_may_not_send_is_refused(form: dict[str, Any], files: list[FileStorage], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        draft_of(MultiDict(form), files)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("code", "status", "ways"),
    [
        ("model_not_found", 404, ["/models/lab/small?tab=access", "/models"]),
        ("insufficient_quota", 429, ["/budgets/user/ada", "/models"]),
        ("rate_limit_exceeded", 429, ["/models"]),
        ("upstream_timeout", 504, ["/models"]),
        ("endpoint_disabled", 503, []),
    ],
)
def test_a_refusal_has_its_ways_out(code: str, status: int, ways: list[str]) -> None:
    error = ApiError(status, "any", code, "It can't be. Ask for more at https://portal.example.org/budgets/user/ada")
    trouble = trouble_of(Refused(error), "lab/small", "/models")
    assert [way.href for way in trouble.ways] == ways
    assert "https://" not in trouble.text
