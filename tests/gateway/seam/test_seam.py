"""The seam carries: another client's dialect over the OpenAI adapter, and another upstream behind OpenAI's dialect.

Both are written against the seam alone: a dialect is a file and a row of the table, a kind of provider is a file. Calls go
through admission and the pipeline without HTTP, metered as all are, to a real upstream and a real Valkey.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import providers
from app.gateway import dialects, pipeline
from app.gateway.admission import admit
from app.gateway.endpoints import CHAT, Endpoint
from app.gateway.errors import ApiError
from app.gateway.runtime import Runtime
from app.runtime.ids import new_id
from tests.services.gate import Gate
from tests.services.upstream import Answer, Behaviour, Stream, Upstream, chat, failure

HERE = Path(__file__).parent
MESSAGES = Endpoint("messages", "/v1/messages", "chat", "anthropic_messages")
TOOL = {"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def more_kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dialect and the kind beside this file, found as those of the application are."""
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(HERE / "dialects")])
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(HERE / "kinds")])
    providers.kinds.cache_clear()
    yield
    providers.kinds.cache_clear()


Call = Callable[..., Any]


@pytest.fixture
def gate(redis_url: str, upstream: Upstream, more_kinds: None) -> Iterator[Gate]:
    made = Gate(redis_url)
    made.begin()
    made.provider("shaped", base_url=f"{upstream.url}")
    made.provider("anthropic", "anthropic", base_url=upstream.url.removesuffix("/v1"), api_key="sk-ant-1")
    made.model("small", "shaped", capabilities=("chat",))
    made.model("claude", "anthropic", capabilities=("chat",))
    yield made
    made.close()


@pytest.fixture
def call(gate: Gate) -> Iterator[Call]:
    """Runs a call without HTTP; its bytes, or the pieces of its stream joined."""
    runtime = Runtime(gate.config)
    key = gate.key()

    def run(endpoint: Endpoint, body: dict[str, Any]) -> bytes:
        caller = runtime.access.caller(key)
        runtime.routes.refresh(runtime.access.directory_version)
        admitted = admit(runtime, caller, endpoint, json.dumps(body).encode(), id=new_id())
        served = pipeline.run(runtime, admitted)
        return served.body if isinstance(served.body, bytes) else b"".join(served.body)

    yield run
    runtime._beats.kill()
    runtime.spool.close()


def message(text: Any = "one two", **more: Any) -> dict[str, Any]:
    return {"model": "small", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}


def events(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of a stream of Anthropic's."""
    found = []
    for event in stream.decode().split("\n\n"):
        if event:
            name, data = event.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def chunks(stream: bytes) -> list[Any]:
    """The chunks of a stream of OpenAI's, `[DONE]` among them as a word."""
    lines = [event.removeprefix("data: ") for event in stream.decode().split("\n\n") if event]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def anthropic(*blocks: dict[str, Any], stop: str = "end_turn", **usage: int) -> dict[str, Any]:
    used = {"input_tokens": 7, "output_tokens": 3} | usage
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "up", "content": list(blocks),
            "stop_reason": stop, "usage": used}  # fmt: skip


def said(*values: dict[str, Any], **options: Any) -> Stream:
    """A stream of Anthropic's, of events that name their type."""
    pieces = [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values]
    return Stream(pieces, done=False, **options)


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
            "input_tokens": event.prompt_tokens, "cache_read_input_tokens": 0, "output_tokens": event.completion_tokens,
        }  # fmt: skip
        assert event.cost_nano == event.prompt_tokens * 1000 + event.completion_tokens * 2000 and not event.estimated

    def test_a_stream_opens_and_closes_what_it_says(self, call: Call, gate: Gate) -> None:
        found = events(call(MESSAGES, message(stream=True)))
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
        found = events(answer)
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
        found = events(call(MESSAGES, message("one two three four", stream=True)))
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
        behaviour = Answer(anthropic(*blocks, cache_read_input_tokens=5))
        answer = json.loads(self.ask(call, upstream, behaviour, max_tokens=9))
        (choice,) = answer["choices"]
        assert choice["message"] == {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
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
        behaviour = said(
            {"type": "message_start", "message": anthropic()},
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
        behaviour = said(
            {"type": "message_start", "message": anthropic()},
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
