"""What OpenAI's dialects have in common: how long a body is, what costs more than tokens, and where a body is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import Price
from app.gateway.dialects import dialect
from app.gateway.endpoints import ASKED
from app.gateway.errors import ApiError
from app.metering import pricing
from tests.gateway.dialects.calls import asked, chat


def test_letters_that_are_escaped_count_no_more_than_in_utf8() -> None:
    body = chat("漢字" * 1_000)
    escaped, plain = (json.dumps(body, ensure_ascii=escape).encode() for escape in (True, False))
    assert len(escaped) > len(plain) + 5_000
    assert asked(escaped).bound.input == asked(plain).bound.input


@pytest.mark.parametrize("text", ["漢\\u", "\\u漢", "漢字", "\\\\u漢"])
def test_in_a_long_body_escapes_count_their_bytes_at_the_most_and_letters_at_the_least(text: str) -> None:
    for place in range(12):  # wherever the looking ends
        body = chat("x" * place + text * 10_000)
        letters, escaped = len(body["messages"][0]["content"].encode()), json.dumps(body).encode()
        assert letters <= asked(escaped).bound.input < len(escaped) + 200


@given(st.text("\\u04e2d", max_size=20))
def test_a_text_about_escapes_counts_whole(text: str) -> None:
    for sent in (json.dumps(chat(text)).encode(), json.dumps(chat(json.dumps({"a": text + "中"}))).encode()):
        spoken = json.loads(sent)["messages"][0]["content"]
        assert asked(sent).bound.input - asked(chat("")).bound.input >= len(spoken.encode())


@pytest.mark.parametrize(
    ("fields", "member"),
    [
        ({"service_tier": "auto"}, None), ({"service_tier": "default"}, None), ({"service_tier": None}, None),
        ({"service_tier": "priority"}, "service_tier"), ({"service_tier": "of tomorrow"}, "service_tier"),
        ({"service_tier": "flex"}, None),
        ({"modalities": ["text"]}, None), ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": None}, None),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"), ({"audio": None}, None),
        ({"web_search_options": {}}, "web_search_options"), ({"web_search_options": None}, None),
        ({"enable_search": True}, "enable_search"), ({"enable_search": False}, None),
        ({"web_search": True}, "web_search"), ({"search_settings": {}}, "search_settings"), ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"), ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"models": ["dearer"]}, "models"), ({"extra_body": {"max_tokens": 5}}, "extra_body"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, None),
        ({"tools": [{"type": "custom"}, {"type": "web_search"}]}, "tools[1].type"),
        ({"temperature": 1, "metadata": {"service_tier": "priority"}}, None),
    ],
)  # fmt: skip
def test_what_costs_more_than_its_tokens_is_named(fields: dict[str, Any], member: str | None) -> None:
    price = Price(id="p", rates={"input_per_mtok": 2}, tiers={"flex": {"input_per_mtok": 1}})
    assert pricing.unpriced_member(price, asked(chat(**fields)).bound) == member


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "api_version", "extra_headers"])
def test_nobody_steers_the_gateway_to_an_address_or_a_credential(name: str) -> None:
    with pytest.raises(ApiError) as refused:
        asked(chat(**{name: None}))
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user"}]}, "model"),
        ({"model": "small"}, "messages"),
        ({"model": "", "messages": [{"role": "user"}]}, "model"),
        ({"model": 5, "messages": [{"role": "user"}]}, "model"),
        ({"model": "small", "messages": []}, "messages"),
        ({"model": "small", "messages": [{"role": "user"}, {"role": "nobody"}]}, "messages[1].role"),
        ({"model": "small", "messages": [{"role": "user"}, {"content": "x"}]}, "messages[1].role"),
        ({"model": "small", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (chat(temperature="warm"), "temperature"),
        (chat(stream_options={"include_usage": 1}), "stream_options.include_usage"),
        (chat(fallback_providers=["a", ""]), "fallback_providers[1]"),
    ],
)
def test_a_refusal_names_the_exact_place_that_is_wrong(body: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        asked(body)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_what_steers_the_gateway_never_reaches_an_upstream() -> None:
    call = asked(chat(provider="up", fallback_providers=["down"], anything=1))
    assert (call.steering.provider, call.steering.fallbacks) == ("up", ("down",))
    assert set(call.request.members) == {"model", "messages", "anything"}


@given(st.text(min_size=1, max_size=30), st.sampled_from(["user", "model"]))
def test_an_envelope_of_an_error_is_whole_whatever_it_says(message: str, param: str) -> None:
    error = ApiError(400, "invalid_request_error", None, message, param=param)
    told = json.loads(dialect("openai_chat").error(error, "r"))
    assert told == {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


@given(st.text(max_size=50))
def test_a_cut_is_one_event_whatever_it_says(message: str) -> None:
    event = dialect("openai_chat").cut(message)
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    assert json.loads(event[6:])["error"] == {
        "message": message, "type": "upstream_error", "param": None, "code": "upstream_cut",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "session", "told"),
    [
        ({"prompt_cache_key": "x", "session_id": "y"}, "z", 'cache "x"'),
        ({"prompt_cache_key": "", "session_id": "y"}, "z", "session z"),
        ({"prompt_cache_key": None, "session_id": "y", "conversation": "c"}, "", 'session "y"'),
        ({"conversation": {"id": 5}}, "", 'session {"id": 5}'),
        ({}, "", "2 hi"),
    ],
)
def test_a_conversation_is_named_by_its_cache_its_session_or_its_beginning(
    fields: dict[str, Any], session: str, told: str
) -> None:
    call = asked(chat(**fields))
    assert call.dialect.conversation_id(call.request, session) == told


@pytest.mark.parametrize("path", [path for path, endpoint in ASKED.items() if endpoint.body == "json"])
def test_what_the_gateway_notes_in_a_request_no_member_of_a_body_can_say(path: str) -> None:
    """A field without a name of its own is the gateway's: in JSON a member may be called so, in a form none is."""
    spoken: Any = dialect(str(ASKED[path].dialect))
    assert "" not in spoken.request.__struct_encode_fields__
