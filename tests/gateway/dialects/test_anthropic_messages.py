"""Anthropic's dialect: over upstreams of another, and over its own, where bytes pass."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import CallerRecord, Deployment, Model, Price
from app.gateway import dialects, metrics
from app.gateway.admission import admit
from app.gateway.dialects.openai import MESSAGE_TOKENS, OWN_BYTES
from app.gateway.endpoints import CHAT, MESSAGES
from app.gateway.errors import ApiError
from app.gateway.runtime import Runtime
from app.metering import pricing
from app.metering.money import NANO
from app.providers.anthropic import _put
from app.providers.base import Usage, all_of
from app.providers.conversation import Finish, Reasoning, Text, ToolCallDelta, Turn
from config import Gateway
from tests.gateway.conftest import Call
from tests.services.gate import Gate
from tests.services.upstream import Answer, Behaviour, Upstream, chat, events_of, failure, messages
from tests.services.upstream import message as answered

TOOL = {"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object", "properties": {}}}


def message(text: Any = "one two", **more: Any) -> dict[str, Any]:
    return {"model": "small", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}


def events_in(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of a stream of Anthropic's."""
    found = []
    for event in stream.decode().split("\n\n"):
        if event:
            name, data = event.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def chunks(stream: bytes) -> list[Any]:
    """The chunks of a stream of OpenAI's, `[DONE]` among them as a word."""
    events = [event for event in stream.decode().split("\n\n") if event and not event.startswith(":")]
    lines = [event.removeprefix("data: ") for event in events]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


class TestAnthropicsDialectOverTheOpenAIAdapter:
    def test_a_whole_answer(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        answer = json.loads(call(MESSAGES, message(system="Be brief.", stop_sequences=["x"])))
        assert answer["type"] == "message" and answer["model"] == "small" and answer["stop_reason"] == "end_turn"
        assert answer["content"] == [{"type": "text", "text": "one two"}]
        sent = upstream.requests[-1].json
        assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}]
        assert (sent["model"], sent["stop"], sent["max_tokens"]) == ("small-up", ["x"], 50)
        (event,) = gate.events()
        assert answer["usage"] == {
            "input_tokens": event.prompt_tokens, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": event.completion_tokens,
        }  # fmt: skip
        assert event.cost_nano == event.prompt_tokens * 1000 + event.completion_tokens * 2000 and not event.estimated

    def test_a_stream_opens_and_closes_what_it_says(self, call: Call, gate: Gate) -> None:
        found = events_in(call(MESSAGES, message(stream=True)))
        assert [name for name, _ in found] == [
            "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
            "message_delta", "message_stop",
        ]  # fmt: skip
        assert "".join(data["delta"]["text"] for name, data in found if name == "content_block_delta") == "one two "
        (event,) = gate.events()
        assert found[-2][1]["usage"]["output_tokens"] == event.completion_tokens == 2
        assert all(data["type"] == name for name, data in found)

    @pytest.mark.parametrize("stream", [False, True])
    def test_tools_are_called_in_parallel(self, call: Call, upstream: Upstream, stream: bool) -> None:
        tools = [TOOL, TOOL | {"name": "add_up"}]
        answer = call(MESSAGES, message(tools=tools, tool_choice={"type": "any"}, stream=stream))
        sent = upstream.requests[-1].json
        assert [tool["function"]["name"] for tool in sent["tools"]] == ["look_up", "add_up"]
        assert sent["tool_choice"] == "required"
        if not stream:
            blocks = json.loads(answer)["content"]
            assert [(block["name"], block["input"]) for block in blocks] == [
                ("look_up", {"text": "one two"}), ("add_up", {"text": "one two"}),
            ]  # fmt: skip
            return
        found = events_in(answer)
        starts = [data for name, data in found if name == "content_block_start"]
        assert [(start["index"], start["content_block"]["name"]) for start in starts] == [(0, "look_up"), (1, "add_up")]
        assert found[-2][1]["delta"]["stop_reason"] == "tool_use"

    def test_results_of_tools_go_up_as_messages_of_their_own(self, call: Call, upstream: Upstream) -> None:
        history = [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look_up", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"},
                                         {"type": "text", "text": "and?"}]},
        ]  # fmt: skip
        call(MESSAGES, message() | {"messages": history})
        _, called, result, more = upstream.requests[-1].json["messages"]
        assert called["tool_calls"] == [
            {"id": "t1", "type": "function", "function": {"name": "look_up", "arguments": '{"a":1}'}}
        ]
        assert result == {"role": "tool", "tool_call_id": "t1", "content": "42"}
        assert more == {"role": "user", "content": "and?"}

    def test_a_cut_is_told_in_its_own_words(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=3))
        found = events_in(call(MESSAGES, message("one two three four", stream=True)))
        assert found[-1][0] == "error" and found[-1][1]["error"]["type"] == "api_error"
        (event,) = gate.events()
        assert (event.outcome, event.error_code) == ("error", "upstream_cut") and event.completion_tokens > 0

    @pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (500, "api_error")])
    def test_errors_have_its_envelope(self, call: Call, upstream: Upstream, status: int, kind: str) -> None:
        upstream.script("/v1/chat/completions", failure(status, "too long"))
        with pytest.raises(ApiError) as refused:
            call(MESSAGES, message())
        body = json.loads(dialects.dialect("anthropic_messages").error(refused.value, "r1"))
        assert body["type"] == "error" and body["error"]["type"] == kind and body["request_id"] == "r1"

    def test_a_missing_limit_is_named(self, call: Call) -> None:
        with pytest.raises(ApiError, match="max_tokens"):
            call(MESSAGES, {"model": "small", "messages": []})


class TestOpenAIsDialectOverAnotherUpstream:
    def ask(self, call: Call, upstream: Upstream, behaviour: Behaviour, **more: Any) -> bytes:
        upstream.script("/v1/messages", behaviour)
        asked = {"model": "claude", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}
        answer: bytes = call(CHAT, asked | more)
        return answer

    def test_a_whole_answer(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        blocks = {"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "Hello"}
        behaviour = Answer(answered(*blocks, cache_read_input_tokens=5))
        answer = json.loads(self.ask(call, upstream, behaviour, max_tokens=9))
        (choice,) = answer["choices"]
        assert choice["message"] == {
            "role": "assistant", "content": "Hello", "refusal": None, "reasoning_content": "hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}],
        }  # fmt: skip
        assert (answer["model"], choice["finish_reason"]) == ("claude", "stop")
        assert answer["usage"] == {
            "prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 5},
        }  # fmt: skip
        exchange = upstream.requests[-1]
        assert exchange.path == "/v1/messages" and exchange.headers["x-api-key"] == "sk-ant-1"
        assert exchange.json["system"] == "s" and exchange.json["max_tokens"] == 9
        (event,) = gate.events()
        assert (event.prompt_tokens, event.cached_tokens, event.completion_tokens) == (12, 5, 3)

    def test_a_stream_with_text_and_calls(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        behaviour = events_of(
            {"type": "message_start", "message": answered()},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me see"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1,
             "content_block": {"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 8}},
            {"type": "message_stop"},
        )  # fmt: skip
        *found, usage, done = chunks(
            self.ask(call, upstream, behaviour, stream=True, stream_options={"include_usage": True})
        )
        assert done == "[DONE]" and usage["choices"] == [] and usage["usage"]["completion_tokens"] == 8
        deltas = [chunk["choices"][0]["delta"] for chunk in found]
        assert "".join(delta.get("content") or "" for delta in deltas) == "Let me see"
        calls = [one for delta in deltas for one in delta.get("tool_calls", ())]
        assert (calls[0]["index"], calls[0]["id"], calls[0]["function"]["name"]) == (0, "t1", "look_up")
        assert "".join(one["function"]["arguments"] for one in calls) == '{"a":1}'
        assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
        (event,) = gate.events()
        assert (event.prompt_tokens, event.completion_tokens, event.finish_reason) == (7, 8, "tool_calls")

    def test_a_cut_stream_is_an_error_and_costs_what_was_told(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        behaviour = events_of(
            {"type": "message_start", "message": answered()},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let"}},
        )  # fmt: skip
        *_, last = chunks(self.ask(call, upstream, behaviour, stream=True))
        assert last["error"]["code"] == "upstream_cut"
        (event,) = gate.events()
        assert event.prompt_tokens == 7 and event.outcome == "error"

    def test_what_can_not_be_said_there_is_refused_and_costs_nothing(
        self, call: Call, gate: Gate, upstream: Upstream
    ) -> None:
        with pytest.raises(ApiError) as refused:
            self.ask(call, upstream, Answer({}), n=2)
        assert (refused.value.status, refused.value.param) == (400, "n")
        (event,) = gate.events()
        assert event.cost_nano == 0 and not upstream.requests

    def test_an_error_of_the_upstream_is_told(self, call: Call, upstream: Upstream) -> None:
        refusal = Answer(
            {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}}, 400
        )
        with pytest.raises(ApiError, match="prompt is too long") as refused:
            self.ask(call, upstream, refusal)
        assert refused.value.status == 400


@pytest.mark.parametrize("keep_alive_s", [0.05])
@pytest.mark.parametrize("model", ["claude", "small"])
def test_a_stream_that_is_silent_pings(call: Call, gate: Gate, upstream: Upstream, model: str) -> None:
    gate.provider("shaped", base_url=upstream.url, timeout_s=1)
    gate.provider("anthropic", "anthropic", base_url=upstream.origin, timeout_s=1)
    upstream.script("/v1/messages", lambda request: messages(request, delay_s=0.6))
    upstream.script("/v1/chat/completions", lambda request: chat(request, delay_s=0.6))
    found = events_in(call(MESSAGES, message(stream=True) | {"model": model}))
    assert [name for name, _ in found].count("ping") >= 2 and found[-1][0] == "message_stop"
    assert found[0][0] == "message_start", "nothing comes before it"
    assert "".join(data["delta"]["text"] for name, data in found if name == "content_block_delta") == "one two "
    assert gate.events()[0].completion_tokens == 2


BIG = base64.b64encode(b"0123456789" * 3_000).decode()
UP = Deployment(id="d", provider_id="p", upstream_model="served/under-another-name")
MODEL = Model(
    id="m", name="small", capabilities=("chat",), created=1, deployments=(UP,), image_tokens=700, context_window=9_000
)
CALLER = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})
BASE64 = {"type": "base64", "data": BIG}
PICTURE = {"type": "image", "source": BASE64 | {"media_type": "image/png"}}


def asked(body: dict[str, Any] | bytes, model: Model = MODEL) -> Any:
    """The call that a body makes."""
    routes = SimpleNamespace(model_for=lambda _: model, endpoint_active=lambda _: True)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    runtime = SimpleNamespace(routes=routes, config=SimpleNamespace(gateway=Gateway()), wire=None)
    return admit(cast(Runtime, runtime), CALLER, MESSAGES, sent, id="r")


class TestWhatIsReserved:
    @given(st.dictionaries(words := st.text(min_size=1, max_size=9), words, max_size=3), st.lists(words, max_size=3))
    def test_is_never_less_than_the_bytes_that_are_sent(self, more: dict[str, str], said: list[str]) -> None:
        body = {f"x_{name}": value for name, value in more.items()} | message(
            [{"type": "text", "text": t} for t in said]
        )
        call = asked(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
        values = {"model": msgspec.json.encode(UP.upstream_model), "max_tokens": b"2147483648"}
        assert call.bound.input >= len(b"".join(_put(call.request, values)))

    @pytest.mark.parametrize(
        ("block", "data", "most"),
        [
            (PICTURE, BIG, 700),
            ({"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}, "", 700),
            ({"type": "image", "source": BASE64 | {"media_type": "application/pdf"}}, BIG, 9_000),
            ({"type": "document", "source": BASE64 | {"media_type": "application/pdf"}}, BIG, 9_000),
            ({"type": "document", "source": {"type": "text", "data": BIG, "media_type": "text/plain"}}, "", 0),
            ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "", 9_000),
            ({"type": "tool_result", "tool_use_id": "t", "content": [PICTURE]}, BIG, 700),
            ({"type": "thinking", "thinking": "hm", "signature": BIG}, "", 0),
            ({"type": "of_tomorrow", "somewhere": "https://x.test/a.png"}, "", 700),
        ],
    )  # fmt: skip
    def test_the_data_of_media_is_replaced_by_what_such_a_block_can_be(self, block: Any, data: str, most: int) -> None:
        body = message([block])
        bytes_ = len(json.dumps(body)) + MESSAGE_TOKENS + OWN_BYTES + len(UP.upstream_model)
        assert asked(body).bound.input == bytes_ - len(data) + most

    def test_covers_cache_writes_at_their_dearest(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        rates = {"input_per_mtok": 5 * NANO, "cache_write_1h_per_mtok": 10 * NANO, "output_per_mtok": 25 * NANO}
        gate.model("claude", "anthropic", capabilities=("chat",), price=Price(id="p", rates=rates))
        key = gate.key()
        gate.limit("key", f"key-{key[-6:]}", "1")
        body = message() | {"model": "claude"}
        tokens = len(json.dumps(body)) + MESSAGE_TOKENS + OWN_BYTES + len("claude-up")
        told = {"cache_creation_input_tokens": 40, "cache_creation": {"ephemeral_1h_input_tokens": 40}}
        upstream.script("/v1/messages", Answer(answered({"type": "text", "text": "Hi"}, **told)))
        call(MESSAGES, body, key)
        (event,) = gate.events()
        assert event.hold_nano == tokens * 10_000 + 50 * 25_000
        assert (event.cost_nano, event.overdraft_nano) == (7 * 5_000 + 40 * 10_000 + 3 * 25_000, 0)

    @pytest.mark.parametrize(
        ("fields", "member"),
        [
            ({"speed": "fast"}, "service_tier"), ({"speed": "standard"}, None), ({"speed": "turbo"}, None),
            ({"inference_geo": "us"}, "inference_geo"), ({"inference_geo": None}, None),
            ({"fallbacks": [{"model": "x"}]}, "fallbacks"), ({"service_tier": "standard_only"}, None),
            ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, None), ({"brand_new": 1}, None),
        ],
    )  # fmt: skip
    def test_what_is_known_to_cost_more_and_has_no_price_is_named(self, fields: Any, member: str | None) -> None:
        price = Price(id="p", rates={"input_per_mtok": 2}, tiers={"turbo": {"input_per_mtok": 4}})
        assert pricing.unpriced_member(price, asked(message() | fields).bound) == member

    def test_an_answer_may_be_as_long_as_it_says(self) -> None:
        with pytest.raises(ApiError) as refused:
            asked({"model": "small", "messages": [{"role": "user", "content": "hi"}]})
        assert (refused.value.status, refused.value.param) == (400, "max_tokens")
        with pytest.raises(ApiError):
            asked(message() | {"max_tokens": None})


class TestPieces:
    """Events of another upstream, as blocks."""

    def written(self, *events: Any) -> list[tuple[str, dict[str, Any]]]:
        exchange = SimpleNamespace(neutral_events=lambda: iter(events), usage=Usage(), conclude=lambda: Usage(9, 2, 3))
        request = asked(message(tools=[TOOL, TOOL | {"name": "a.b"}, TOOL | {"name": "n" * 90}])).request
        *pieces, last = all_of(dialects.dialect("anthropic_messages").events(request, cast(Any, exchange)))
        assert b"message_stop" not in b"".join(pieces)  # it leaves once the call is settled
        return events_in(b"".join([*pieces, last]))

    def starts(self, *events: Any) -> list[dict[str, Any]]:
        found = self.written(*events)
        starts = [data for name, data in found if name == "content_block_start"]
        stops = [data["index"] for name, data in found if name == "content_block_stop"]
        assert [start["index"] for start in starts] == stops == list(range(len(starts)))
        for start in starts:
            deltas = [
                data["delta"]
                for name, data in found
                if name == "content_block_delta" and data["index"] == start["index"]
            ]
            start["content_block"]["said"] = "".join(
                delta.get("text") or delta.get("thinking") or delta.get("partial_json") or delta.get("signature") or ""
                for delta in deltas
            )
        return [start["content_block"] for start in starts]

    def test_calls_that_come_in_turns_are_told_one_after_the_other(self) -> None:
        calls = self.starts(
            ToolCallDelta(0, "a", "look_up"), ToolCallDelta(1, "b", "add_up"), ToolCallDelta(0, arguments='{"x"'),
            ToolCallDelta(1, arguments="{}"), ToolCallDelta(0, arguments=":1}"), Finish("tool_calls"),
        )  # fmt: skip
        assert [(call["id"], call["said"]) for call in calls] == [("a", '{"x":1}'), ("b", "{}")]

    def test_a_call_that_is_whole_gives_way_to_the_next(self) -> None:
        found = self.written(
            ToolCallDelta(0, "a", "look_up", "{}"), ToolCallDelta(1, "b", "add_up", '{"y"'), ToolCallDelta(1, arguments=":2}"),
            Finish("stop"),
        )  # fmt: skip
        assert [name for name, _ in found][1:-2] == [
            "content_block_start", "content_block_delta", "content_block_stop",
            "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        ]  # fmt: skip
        assert found[-2][1]["delta"]["stop_reason"] == "tool_use"

    def test_thoughts_have_their_signatures_and_text_follows(self) -> None:
        blocks = self.starts(
            Reasoning("hm"),
            Reasoning(" so"),
            Reasoning("", "sig"),
            Reasoning("", "hidden", True),
            Text("Hi"),
            Finish("stop"),
        )
        assert [(block["type"], block["said"]) for block in blocks] == [
            ("thinking", "hm sosig"), ("redacted_thinking", ""), ("text", "Hi"),
        ]  # fmt: skip

    def test_names_of_tools_come_back_as_the_client_knows_them(self) -> None:
        conversation = asked(message(tools=[TOOL | {"name": "a.b"}, TOOL | {"name": "n" * 90}])).request.conversation()
        sent = [tool.name for tool in conversation.tools]
        assert all(len(name) <= 64 and "." not in name for name in sent)
        calls = [ToolCallDelta(at, "x", name, "{}") for at, name in enumerate(sent)]
        assert [block["name"] for block in self.starts(*calls, Finish("tool_calls"))] == ["a.b", "n" * 90]

    def test_an_answer_of_nothing_is_whole(self) -> None:
        assert [name for name, _ in self.written(Finish("length"))] == [
            "message_start",
            "message_delta",
            "message_stop",
        ]
        usage = self.written(Finish("length"))[1][1]["usage"]
        assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (7, 2, 3)


class TestWhatOthersHaveNoWordFor:
    def test_is_left_out_and_counted(self) -> None:
        before = metrics._sums.copy()
        body = message([{"type": "text", "text": "hi"}, {"type": "of_tomorrow"}], top_k=3, brand_new=1, tools=[
            TOOL, {"type": "web_search_20260318", "name": "web_search"}, {"type": "of_tomorrow_2"}])  # fmt: skip
        conversation = asked(body).request.conversation()
        assert [tool.name for tool in conversation.tools] == ["look_up"]
        assert conversation.turns == (Turn("user", (Text("hi"),)),)
        dropped = {labels[2] for labels in (metrics._sums - before) if labels[0] is metrics.DROPPED}
        assert dropped == {"blocks", "tools", "top_k", "other"}

    def test_is_refused_where_it_would_change_the_meaning(self) -> None:
        web_search = {"type": "web_search_20260318", "name": "web_search"}
        choice = {"type": "tool", "name": "web_search"}
        with pytest.raises(ApiError) as refused:
            asked(message(tools=[web_search, TOOL], tool_choice=choice)).request.conversation()
        assert (refused.value.status, refused.value.param) == (400, "tool_choice")

    def test_a_client_s_note_of_itself_and_its_session_are_nobody_s_business(self) -> None:
        system = [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2"},
            {"type": "text", "text": "Be kind."},
        ]
        user = {"user_id": json.dumps({"session_id": "s", "device_id": "d"})}
        conversation = asked(message(system=system, metadata=user)).request.conversation()
        assert conversation.turns[0].parts == (Text("Be kind."),) and conversation.user is None

    @pytest.mark.parametrize(
        ("fields", "effort"),
        [
            ({}, None), ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
            ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "high"),
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
            ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, "xhigh"),
            ({"thinking": {"type": "between_tools"}}, None), ({"output_config": {"effort": 7}}, None),
        ],
    )  # fmt: skip
    def test_an_effort_is_read_from_either_member(self, fields: Any, effort: str | None) -> None:
        assert asked(message(**fields)).request.conversation().effort == effort


class TestAConversation:
    def test_leaves_home_without_the_thoughts_that_only_home_understands(self) -> None:
        thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
        body = message() | {"messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "yes"}], "new": 1},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "d"}]},
        ]}  # fmt: skip
        spoken = dialects.dialect("anthropic_messages")
        request = asked(body).request
        assert spoken.is_bound(request) and request.raw is not None
        spoken.leave_home(request)
        assert json.loads(request.members["messages"]) == [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "text", "text": "yes"}], "new": 1},
        ]  # fmt: skip
        assert request.raw is None and not spoken.is_bound(request)

    def test_that_is_long_leaves_home_too(self) -> None:
        spoken, thought = (
            dialects.dialect("anthropic_messages"),
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        )
        request = asked(message([{"type": "text", "text": "x" * 70_000}, thought])).request
        assert spoken.is_bound(request)
        spoken.leave_home(request)
        assert not spoken.is_bound(request)

    def test_is_known_by_its_session_or_its_opening(self) -> None:
        spoken = dialects.dialect("anthropic_messages")
        one, other = asked(message("one", system="Be kind.")).request, asked(message("two", system="Be kind.")).request
        assert spoken.conversation_id(one, "s") == spoken.conversation_id(other, "s") == "session s"
        assert spoken.conversation_id(one, "") != spoken.conversation_id(other, "")


class TestALimitThatNobodyNames:
    """Anthropic must be given one: it is what was held for."""

    def test_is_the_model_s_usual_one(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        gate.model("claude", "anthropic", capabilities=("chat",), default_output_tokens=321)
        call(CHAT, {"model": "claude", "messages": [{"role": "user", "content": "hi"}]})
        assert upstream.requests[-1].json["max_tokens"] == 321

    def test_is_what_a_budget_has_room_for(self, call: Call, gate: Gate, upstream: Upstream) -> None:
        key = gate.key()
        gate.limit("key", f"key-{key[-6:]}", "0.0005")
        call(CHAT, {"model": "claude", "messages": [{"role": "user", "content": "hi"}]}, key)
        (event,) = gate.events()
        sent = upstream.requests[-1].json["max_tokens"]
        assert 16 <= sent < 1000 and event.hold_nano <= 500_000
        assert event.hold_nano + 2000 > 500_000, "not a token more would fit"


def test_usage_of_caches_is_told_to_other_clients_too(call: Call, upstream: Upstream) -> None:
    told = {
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    upstream.script("/v1/messages", Answer(answered({"type": "text", "text": "Hi"}, **told)))
    asks = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert json.loads(call(CHAT, asks))["usage"] == {
        "prompt_tokens": 18, "completion_tokens": 3, "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip


def test_an_answer_bears_the_name_that_was_asked_for(call: Call, gate: Gate, upstream: Upstream) -> None:
    gate.model("claude", "anthropic", capabilities=("chat",), aliases=("claude-latest",))
    for endpoint, name in ((MESSAGES, "claude-latest"), (CHAT, "claude")):
        answer = json.loads(call(endpoint, message() | {"model": "claude-latest"}))
        assert answer["model"] == name
    assert {event.model for event in gate.events(2)} == {"claude"}
