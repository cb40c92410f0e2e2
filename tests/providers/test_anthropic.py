"""Anthropic as a provider: its address, its list, a try at it, and streams of any kind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.providers.addresses import AddressPolicy
from app.providers.anthropic import Anthropic, AnthropicExchange, AnthropicSettings
from app.providers.base import UpstreamError, UpstreamRequest, all_of
from app.providers.http import Answer as Heard
from app.providers.model_list import ListedModel
from tests.providers.test_openai import Canned, values
from tests.services.upstream import Answer, Upstream

POLICY = AddressPolicy(allow_private=True)
HELLO = {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {}}


@pytest.fixture(params=["", "/v1"])
def adapter(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Anthropic]:
    """Its address is the origin; /v1 behind it does no harm."""
    made = Anthropic(AnthropicSettings(base_url=upstream.origin + request.param, api_key="sk-ant-1"), policy=POLICY)
    yield made
    made.close()


def test_a_list_tells_names_and_limits(adapter: Anthropic, upstream: Upstream) -> None:
    listed = {"id": "claude-x", "type": "model", "max_input_tokens": 200_000, "max_tokens": 64_000}
    upstream.script("/v1/models", Answer({"data": [listed], "has_more": False}))
    assert adapter.list_models() == (ListedModel("claude-x", 200_000, 64_000),)
    assert upstream.last.headers["x-api-key"] == "sk-ant-1"
    upstream.script("/v1/models", Answer({}, 404))
    assert adapter.list_models() is None


def test_a_try_asks_for_few_words(adapter: Anthropic, upstream: Upstream) -> None:
    upstream.script("/v1/messages", Answer(HELLO))
    told = adapter.check(model="claude-x", prompt="Hello", parameters={"top_k": 3})
    assert told.result == "ok" and told.models == ("large", "small")
    assert upstream.last.json == {
        "max_tokens": 16, "top_k": 3, "model": "claude-x", "messages": [{"role": "user", "content": "Hello"}], "stream": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind", "verdict"),
    [
        (401, "authentication_error", "auth_error"), (403, "permission_error", "auth_error"),
        (404, "not_found_error", "model_not_found"), (529, "overloaded_error", "bad_response"), (200, "", "bad_response"),
    ],
)  # fmt: skip
def test_a_try_that_fails_is_told_apart(
    adapter: Anthropic, upstream: Upstream, status: int, kind: str, verdict: str
) -> None:
    upstream.script("/v1/messages", Answer({"type": "error", "error": {"type": kind, "message": "no"}}, status))
    assert adapter.check(model="claude-x", prompt=None, parameters={}).result == verdict


def test_a_provider_that_is_away_is_told_without_a_call() -> None:
    adapter = Anthropic(AnthropicSettings(base_url="http://127.0.0.1:9"), policy=POLICY)
    assert adapter.check(model="claude-x", prompt=None, parameters={}).result == "connection_error"


kinds = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "error", "new"]
)
odd = st.fixed_dictionaries({"type": kinds | values}, optional={
    "message": values | st.fixed_dictionaries({"usage": values}), "usage": values, "index": values,
    "content_block": values | st.fixed_dictionaries({"type": st.sampled_from(["text", "tool_use", "thinking"]), "name": values}),
    "delta": values | st.fixed_dictionaries({"type": st.sampled_from(["text_delta", "input_json_delta"])},
                                            optional={"text": values, "partial_json": values, "stop_reason": values}),
})  # fmt: skip


@example([{"type": "\ud83d"}], False)
@given(st.lists(odd | values, max_size=5), st.booleans())
def test_any_stream_is_events_of_ours_or_a_failure(events: list[Any], neutral: bool) -> None:
    pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    request = UpstreamRequest(
        capability="chat", dialect="anthropic_messages", model="ours", members={}, parsed=None, stream=True
    )
    exchange = AnthropicExchange(cast(Heard, Canned(pieces)), request, None, 60.0)
    is_whole = False
    with contextlib.suppress(UpstreamError):
        told: list[Any] = list(exchange.neutral_events() if neutral else all_of(exchange.events()))
        is_whole = bool(told)
    assert is_whole <= bool(exchange.finish_reason), "what is whole says why it ended"
    assert exchange.conclude().completion_tokens >= 0
