"""Anthropic's official client notices no difference but the address, and its agents neither."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.odd_values import ODD
from tests.services.upstream import Answer, Upstream, chat, events_of, failure, message, messages

SAID = [{"role": "user", "content": "one two three"}]
TOOLS = [
    {"name": "look_up", "description": "Looks up.", "input_schema": {"type": "object", "properties": {}}},
    {"name": "add_up", "input_schema": {"type": "object", "properties": {}}},
]
MODELS = (
    "claude",
    "small",
    "gemini",
    "echo-1",
)  # at an upstream of Anthropic's, of OpenAI's, of Gemini's, and answered here
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}

pytestmark = pytest.mark.both_lanes


@pytest.fixture(autouse=True)
def claude(gate: Gate, upstream: Upstream) -> None:
    gate.provider("anthropic", "anthropic", base_url=upstream.origin, api_key="sk-ant-1")
    gate.model("claude", "anthropic", capabilities=("chat",))
    gate.provider("gemini", "gemini", base_url=upstream.origin, api_key="AIza-1")
    gate.model("gemini", "gemini", capabilities=("chat",))


@pytest.fixture
def key(gate: Gate, claude: None) -> str:
    return gate.key()


@pytest.fixture
def sdk(gate: Gate, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=key, base_url=gate.url, timeout=30) as made:
        yield made


def asked(model: str = "claude", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": SAID, **more}


@pytest.mark.parametrize("model", MODELS)
class TestTheOfficialClient:
    def test_is_answered(self, sdk: anthropic.Anthropic, model: str) -> None:
        answer = sdk.messages.create(**asked(model))
        assert (answer.type, answer.role, answer.model) == ("message", "assistant", model)
        assert [block.text for block in answer.content] == ["one two three"]
        assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 3)
        assert answer._request_id

    def test_streams(self, sdk: anthropic.Anthropic, gate: Gate, model: str) -> None:
        with sdk.messages.stream(**asked(model)) as stream:
            assert "".join(stream.text_stream).split() == ["one", "two", "three"]
            final = stream.get_final_message()
        assert (final.model, final.stop_reason, final.usage.output_tokens) == (model, "end_turn", 3)
        (event,) = gate.events()
        assert (event.completion_tokens, event.outcome, event.endpoint) == (3, "ok", "/v1/messages")
        cached = final.usage.cache_read_input_tokens or 0
        assert event.prompt_tokens == final.usage.input_tokens + cached and event.cached_tokens == cached

    def test_counts_tokens_for_nothing(self, sdk: anthropic.Anthropic, gate: Gate, key: str, model: str) -> None:
        gate.limit("key", f"key-{key[-6:]}", "0")
        counted = sdk.messages.count_tokens(model=model, messages=SAID, system="Be brief.", tools=TOOLS)
        assert counted.input_tokens == 18 if model == "claude" else 3 < counted.input_tokens < 60
        assert not gate.redis.xlen("usage")

    def test_runs_a_conversation_with_a_tool(self, sdk: anthropic.Anthropic, model: str) -> None:
        choice = {"type": "tool", "name": "look_up"} if model == "echo-1" else {"type": "any"}
        answer = sdk.messages.create(**asked(model, tools=TOOLS, tool_choice=choice))
        calls = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == "tool_use" and calls[0].name == "look_up"
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "forty two"} for call in calls]
        history = [*SAID, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        after = sdk.messages.create(**asked(model) | {"messages": history})
        assert after.content[0].type == "text"

    def test_streams_calls_of_tools(self, sdk: anthropic.Anthropic, model: str) -> None:
        choice = {"type": "tool", "name": "look_up"} if model == "echo-1" else {"type": "any"}
        with sdk.messages.stream(**asked(model, tools=TOOLS, tool_choice=choice)) as stream:
            final = stream.get_final_message()
        calls = [block for block in final.content if block.type == "tool_use"]
        assert [call.name for call in calls] == ["look_up", "add_up"][: len(calls)]
        assert all(call.input or model == "echo-1" for call in calls) and final.stop_reason == "tool_use"


class TestRefusals:
    def test_are_the_classes_of_the_client(self, sdk: anthropic.Anthropic, gate: Gate, upstream: Upstream) -> None:
        with pytest.raises(anthropic.PermissionDeniedError, match=r"/models") as denied:
            sdk.messages.create(**asked("unknown"))
        assert denied.value.body["error"]["type"] == "permission_error"
        with pytest.raises(anthropic.BadRequestError, match="max_tokens") as bad:
            sdk.post("/v1/messages", body={"model": "claude", "messages": SAID}, cast_to=object)
        assert bad.value.body["request_id"] == bad.value.request_id
        wrong = anthropic.Anthropic(api_key="sk-wrong", base_url=gate.url)
        with pytest.raises(anthropic.AuthenticationError, match=r"http://\S+/keys") as refused:
            wrong.messages.create(**asked())
        assert refused.value.response.headers["x-should-retry"] == "false"

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_spent_budget_is_told_once_with_its_link(
        self, sdk: anthropic.Anthropic, gate: Gate, key: str, upstream: Upstream, stream: bool
    ) -> None:
        gate.limit("key", f"key-{key[-6:]}", "0", "day")
        answers: list[Any] = []
        sdk._client.event_hooks = {"response": [answers.append]}
        with pytest.raises(anthropic.RateLimitError, match=r"budget .* Ask for more at http") as stopped:
            sdk.messages.create(**asked(stream=stream))
        assert stopped.value.body["error"]["type"] == "billing_error"
        assert stopped.value.response.headers["x-should-retry"] == "false"
        assert 1 <= int(stopped.value.response.headers["Retry-After"]) <= 86_400
        assert len(answers) == 1 and not upstream.requests

    def test_speak_its_dialect_wherever_they_arise(self, client: Client, gate: Gate) -> None:
        for reply in (
            client("/v1/messages", b"{"),
            client("/v1/messages", method="GET"),
            client("/v1/messages/unknown", {}),
            client("/v1/messages/count_tokens", {"model": "claude"}),
            Client(gate, None)("/v1/messages", asked()),
        ):
            told = reply.json
            assert (told["type"], set(told)) == ("error", {"type", "error", "request_id"}), told
            assert told["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
            assert 400 <= reply.status < 500

    def test_a_path_that_is_switched_off_counts_nothing_either(self, client: Client, gate: Gate) -> None:
        gate.endpoint("/v1/messages", active=False)
        fresh = Client(gate, gate.key())
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            assert fresh(path, asked()).status == 503


class TestBytes:
    """Where both sides speak the dialect."""

    BODY = (
        b'{ "model":"claude","max_tokens" : 50, "system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2;"},'
        b'{"type":"text","text":"Be \\u00e9.","cache_control":{"type":"ephemeral","ttl":"1h"}}],\n"messages":'
        b'[{"role":"user","content":[{"type":"text","text":"one"},{"type":"new_part","x":1.50}]}],"brand_new":{"a": [1e2]},'
        b'"tools":[{"type":"new_tool_20270101","name":"n"}], "context_management":{"edits":[]} }'
    )

    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
    def test_go_up_as_they_came(self, client: Client, upstream: Upstream, path: str) -> None:
        betas = "claude-code-20250219,brand-new-2027-01-01"
        reply = client(path, self.BODY, **{"anthropic-beta": betas, "anthropic-version": "2024-01-01", "X-Other": "no"})
        assert reply.status == 200, reply.body
        sent = upstream.last
        assert sent.body == self.BODY.replace(b'"claude"', b'"claude-up"')
        assert (sent.headers["anthropic-beta"], sent.headers["anthropic-version"]) == (betas, "2024-01-01")
        assert sent.headers["x-api-key"] == "sk-ant-1"
        assert not {"x-other", "authorization"} & sent.headers.keys()

    def test_steering_never_goes_up(self, client: Client, upstream: Upstream) -> None:
        assert client("/v1/messages", asked(provider="anthropic", top_k=3)).status == 200
        assert upstream.last.json == asked("claude-up", top_k=3)

    def test_come_back_as_they_came(self, client: Client, upstream: Upstream) -> None:
        answer = (
            b'{"id":"m", "model" : "up","content":[{"type":"new","x":"\\u00e9"}],"stop_reason":"pause_turn",'
            b'"usage":{"input_tokens":1,"output_tokens":2,"new":{"a":1}},"new":[ ]}'
        )
        upstream.script("/v1/messages", Answer(answer))
        assert client("/v1/messages", asked()).body == answer.replace(b'"model" : "up"', b'"model":"claude"')

    def test_of_a_stream_come_back_as_they_came(self, client: Client, upstream: Upstream) -> None:
        values = [
            {"type": "message_start", "message": message(new=1)},
            {"type": "ping"},
            {"type": "new_event", "of": ["é"]},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3, "new": 1}},
            {"type": "message_stop", "new": True},
        ]
        upstream.script("/v1/messages", events_of(*values))
        spelled = b"".join(events_of(*values).chunks)
        reply = client("/v1/messages", asked(stream=True))
        assert reply.body == spelled.replace(b'"model": "up"', b'"model":"claude"')
        assert reply.headers["Content-Type"].startswith("text/event-stream")

    @pytest.mark.parametrize(
        "words",
        ["prompt is too long: 205031 tokens > 200000 maximum", "See https://docs.claude.com/en/errors for help."],
    )
    def test_of_an_error_come_back_as_they_came(self, client: Client, upstream: Upstream, words: str) -> None:
        told = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": words}, "new": 1})
        upstream.script("/v1/messages", Answer(told, 400))
        reply = client("/v1/messages", asked())
        assert (reply.status, reply.body.decode()) == (400, told)

    def test_of_an_error_that_tells_too_much_do_not(self, client: Client, upstream: Upstream) -> None:
        words = "sk-ant-1 at http://10.1.2.3:8000 is wrong"
        upstream.script("/v1/messages", Answer({"type": "error", "error": {"type": "x", "message": words}}, 400))
        reply = client("/v1/messages", asked())
        assert reply.status == 400 and b"10.1.2.3" not in reply.body and b"sk-ant-1" not in reply.body

    def test_an_error_within_a_stream_is_the_upstream_s(self, client: Client, upstream: Upstream) -> None:
        start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}
        upstream.script("/v1/messages", events_of({"type": "message_start", "message": message()}, start, OVERLOADED))
        last = client("/v1/messages", asked(stream=True)).body.split(b"\n\n")[-2]
        assert last == b"event: error\ndata: " + json.dumps(OVERLOADED).encode()

    def test_an_error_before_a_word_leads_to_another_provider(
        self, client: Client, gate: Gate, upstream: Upstream
    ) -> None:
        gate.provider("second", "anthropic", base_url=upstream.origin)
        gate.model("claude", "anthropic", "second", capabilities=("chat",))
        upstream.script("/v1/messages", events_of({"type": "message_start", "message": message()}, OVERLOADED))
        assert b"three" in client("/v1/messages", asked(stream=True)).body
        assert len(upstream.requests) == 2 and len(gate.events()) == 1

    def test_an_account_that_is_empty_is_no_fault_of_the_request(
        self, client: Client, gate: Gate, upstream: Upstream
    ) -> None:
        gate.provider("second", "anthropic", base_url=upstream.origin)
        gate.model("claude", "anthropic", "second", capabilities=("chat",))
        words = "Your credit balance is too low to access the Anthropic API."
        told = {"type": "error", "error": {"type": "invalid_request_error", "message": words}}
        upstream.script("/v1/messages", Answer(told, 400))
        assert client("/v1/messages", asked()).status == 200


class TestCuts:
    @pytest.mark.parametrize("model", ["claude", "small"])
    def test_end_with_an_error_and_are_booked_by_what_came(
        self, client: Client, gate: Gate, upstream: Upstream, model: str
    ) -> None:
        upstream.script("/v1/messages", lambda request: messages(request, cut_after=4))
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=3))
        events = client("/v1/messages", asked(model, stream=True)).body.decode().split("\n\n")
        assert events[-2].startswith("event: error\ndata: ") and "message_delta" not in events[-3]
        assert json.loads(events[-2].partition("data: ")[2])["error"]["type"] == "api_error"
        (event,) = gate.events()
        assert (event.outcome, event.error_code, event.estimated) == ("error", "upstream_cut", True)
        assert event.completion_tokens > 0 and event.cost_nano > 0
        if model == "claude":
            assert (event.prompt_tokens, event.cached_tokens) == (12, 5), "told by the first event"

    def test_a_failure_before_the_first_word_is_an_error_with_a_status(
        self, client: Client, gate: Gate, upstream: Upstream
    ) -> None:
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=0))
        reply = client("/v1/messages", asked("small", stream=True))
        assert (reply.status, reply.json["error"]["type"]) == (502, "api_error")
        assert gate.events()[0].cost_nano == 0

    def test_an_upstream_that_is_overloaded_is_told_in_words(self, client: Client, upstream: Upstream) -> None:
        upstream.script("/v1/messages", Answer(OVERLOADED, 529))
        reply = client("/v1/messages", asked())
        assert (reply.status, reply.json["error"]) == (502, {"type": "api_error", "message": "Overloaded"})

    def test_a_busy_upstream_is_a_rate_limit(self, client: Client, upstream: Upstream) -> None:
        upstream.script("/v1/messages", failure(429, "slow down", retry_after="7"))
        reply = client("/v1/messages", asked())
        assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
        assert reply.json["error"]["type"] == "rate_limit_error" and reply.headers["x-should-retry"] is None


class TestAgents:
    """What coding agents send."""

    BODY: dict[str, Any] = {
        "model": "claude", "max_tokens": 32_000, "stream": True,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "", "session_id": "s"})},
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [
            *({"name": f"mcp__a_server_with_a_long_name__and_a_tool_with_a_name_as_long_{at}", "input_schema": {"type": "object"}}
              for at in range(22)),
            {"name": "DeferredToolPlaceholder", "input_schema": {"type": "object"}, "defer_loading": True},
            {"type": "web_search_20260318", "name": "web_search"},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
            {"role": "system", "content": "The folder is empty."},
            {"role": "user", "content": [{"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}}]},
        ],
    }  # fmt: skip
    BETAS = "claude-code-20250219,context-management-2025-06-27,advanced-tool-use-2025-11-20"

    @pytest.mark.parametrize("model", MODELS)
    @pytest.mark.parametrize("stream", [True, False])
    def test_are_answered_whatever_is_behind_the_model(
        self, client: Client, gate: Gate, upstream: Upstream, key: str, model: str, stream: bool
    ) -> None:
        gate.limit("key", f"key-{key[-6:]}", "50")
        reply = client(
            "/v1/messages?beta=true", self.BODY | {"model": model, "stream": stream}, **{"anthropic-beta": self.BETAS}
        )
        assert reply.status == 200, reply.body
        if model == "claude":
            assert upstream.last.json == self.BODY | {"model": "claude-up", "stream": stream}
        if model == "small":
            sent = upstream.last.json
            assert sent.keys() <= {"model", "messages", "tools", "stream", "stream_options", "max_tokens"}
            assert [said["role"] for said in sent["messages"]] == ["system", "user", "system", "user"]
            assert "billing" not in json.dumps(sent) and len(sent["tools"]) == 23
            assert max(len(tool["function"]["name"]) for tool in sent["tools"]) <= 64
            assert b"mcp__a_server_with_a_long_name__and_a_tool_with_a_name_as_long_0" in reply.body

    def test_look_whether_anybody_is_there(self, gate: Gate, client: Client) -> None:
        for path in ("/", "/api/hello"):
            reply = client(path, method="HEAD")
            assert reply.status < 500 and not reply.body

    def test_find_their_models(self, sdk: anthropic.Anthropic) -> None:
        found = sdk.models.list(limit=1000)
        assert {"claude", "small"} <= {model.id for model in found.data}
        assert all(model.type == "model" and model.display_name and model.created_at for model in found.data)

    def test_use_either_credential(self, gate: Gate, key: str) -> None:
        nobody = Client(gate, None)
        assert nobody("/v1/messages", asked(), **{"x-api-key": key}).status == 200
        assert nobody("/v1/messages", asked(), **{"x-api-key": key, "Authorization": ""}).status == 200


def mutated(chance: random.Random) -> dict[str, Any]:
    """A body with fields, tools and parts that nobody knows."""
    body: dict[str, Any] = json.loads(json.dumps(TestAgents.BODY))

    def new(kind: str) -> dict[str, Any]:
        name = f"{kind}_{chance.randrange(10**6)}"
        return {"type": name, **{f"m{at}": chance.choice(ODD) for at in range(chance.randrange(4))}}

    for _ in range(chance.randrange(1, 6)):
        match chance.randrange(6):
            case 0:
                body[f"field_{chance.randrange(10**6)}"] = chance.choice(ODD)
            case 1:
                body["tools"].insert(chance.randrange(len(body["tools"])), new("tool"))
            case 2:
                chance.choice(body["tools"])[f"field_{chance.randrange(10**6)}"] = chance.choice(ODD)
            case 3:
                body["messages"][0]["content"].append(new("part"))
            case 4:
                body["messages"][2]["content"][0][f"field_{chance.randrange(10**6)}"] = chance.choice(ODD)
            case 5:
                for name in ("thinking", "output_config", "context_management", "metadata"):
                    body[name] = body[name] | {f"new_{chance.randrange(10**6)}": chance.choice(ODD)}
    body["stream"] = chance.random() < 0.5
    return body


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_refused_because_it_is_not_known(client: Client, gate: Gate, key: str, model: str) -> None:
    gate.limit("key", f"key-{key[-6:]}", "50")
    chance = random.Random(19)
    for _ in range(200):
        body = mutated(chance) | {"model": model}
        reply = client("/v1/messages?beta=true", body, **{"anthropic-beta": "new-2027-01-01"})
        assert reply.status == 200, (reply.body, body)
