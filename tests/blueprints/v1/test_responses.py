"""OpenAI's official client and agents of its Responses notice no difference but the address, whatever is behind a model."""

from __future__ import annotations

import json
import random
from typing import Any

import openai
import pydantic
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.odd_values import ODD
from tests.services.upstream import (
    Answer,
    Stream,
    Upstream,
    chat,
    events_of,
    failure,
    message,
    messages,
    numbered,
    response,
    responses,
    said,
)

ITEMS = [{"role": "user", "content": "one two three"}]
TOOLS: list[Any] = [
    {"type": "function", "name": name, "description": "d", "strict": False,
     "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}
    for name in ("look_up", "add_up")
]  # fmt: skip
# At an upstream that speaks Responses, at one that chats, at Anthropic's, at Gemini's, and answered here.
MODELS = ("gpt", "small", "claude", "gemini", "echo-1")
ELSEWHERE = MODELS[1:]
CODEX = {"User-Agent": "codex_exec/0.171.0 (Linux; x86_64)"}

pytestmark = pytest.mark.both_lanes


@pytest.fixture(autouse=True)
def models(gate: Gate, upstream: Upstream) -> None:
    gate.provider("openai", "openai", base_url=upstream.url, api_key="sk-up-1")
    gate.provider("anthropic", "anthropic", base_url=upstream.origin, api_key="sk-ant-1")
    gate.provider("google", "gemini", base_url=upstream.origin, api_key="g-1")
    gate.model("gpt", "openai", capabilities=("chat",))
    gate.model("gemini", "google", capabilities=("chat",))
    gate.model("claude", "anthropic", capabilities=("chat",))


@pytest.fixture
def key(gate: Gate, models: None) -> str:
    return gate.key()


def asked(model: str = "gpt", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": ITEMS, **more}


def events_in(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, whose names and numbers are looked at."""
    found = []
    for event in body.decode().split("\n\n"):
        if event:
            name, data = event.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def stream_of(*values: dict[str, Any]) -> Stream:
    """Events without names, of which one may have no type either."""
    return Stream([value | {"sequence_number": at} for at, value in enumerate(values)], done=False)


@pytest.mark.parametrize("model", MODELS)
class TestTheOfficialClient:
    def test_is_answered(self, sdk: openai.OpenAI, gate: Gate, model: str) -> None:
        answer = sdk.responses.create(**asked(model, instructions="Be brief.", max_output_tokens=50))
        assert (answer.object, answer.model, answer.status) == ("response", model, "completed")
        assert answer.output_text == "one two three" and answer.output[0].type == "message"
        assert answer.usage is not None and answer.usage.output_tokens == 3
        (event,) = gate.events()
        assert (event.prompt_tokens, event.cached_tokens, event.completion_tokens) == (
            answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens, 3,
        )  # fmt: skip
        assert (event.endpoint, event.finish_reason, event.estimated) == ("/v1/responses", "stop", False)
        assert answer._request_id

    def test_streams(self, sdk: openai.OpenAI, gate: Gate, model: str) -> None:
        with sdk.responses.stream(**asked(model)) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert kinds[:4] == [
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        ]  # fmt: skip
        assert kinds[-4:] == [
            "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
        ]  # fmt: skip
        assert (final.output_text.split(), final.model, final.status) == (["one", "two", "three"], model, "completed")
        (event,) = gate.events()
        assert (event.outcome, event.completion_tokens) == ("ok", 3)

    @pytest.mark.parametrize("stream", [False, True])
    def test_runs_a_conversation_with_tools(self, sdk: openai.OpenAI, model: str, stream: bool) -> None:
        choice: Any = {"type": "function", "name": "look_up"} if model == "echo-1" else "required"
        options = asked(model, tools=TOOLS, tool_choice=choice)
        if stream:
            with sdk.responses.stream(**options) as streamed:
                answer: Any = streamed.get_final_response()
        else:
            answer = sdk.responses.create(**options)
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [call.name for call in calls] == ["look_up", "add_up"][: 1 if model == "echo-1" else 2]
        assert all(json.loads(call.arguments)["text"] for call in calls)
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "forty two"} for call in calls]
        history = [*ITEMS, *(item.to_dict() for item in answer.output), *results]
        assert sdk.responses.create(model=model, input=history).output_text in ("forty two", "Hello")

    def test_parses_what_was_asked_for(self, sdk: openai.OpenAI, upstream: Upstream, model: str) -> None:
        class Place(pydantic.BaseModel):
            city: str

        told = '{"city": "Bern"}'
        answer = sdk.responses.parse(model=model, input=told, text_format=Place)
        assert answer.output_parsed == Place(city="Bern")
        sent = "" if model == "echo-1" else upstream.last.body.decode()
        assert model == "echo-1" or '"Place"' in sent and '"city"' in sent

    def test_streams_in_pieces_of_its_own_loop(self, sdk: openai.OpenAI, model: str) -> None:
        pieces = list(sdk.responses.create(**asked(model, stream=True)))
        assert [piece.sequence_number for piece in pieces] == list(range(len(pieces)))
        text = "".join(piece.delta for piece in pieces if piece.type == "response.output_text.delta")
        assert text.split() == ["one", "two", "three"]


class TestRefusals:
    def test_are_the_classes_of_the_client(self, sdk: openai.OpenAI, gate: Gate, upstream: Upstream) -> None:
        with pytest.raises(openai.NotFoundError, match="/models"):
            sdk.responses.create(**asked("unknown"))
        for member, value in (("background", True), ("conversation", "conv_1")):
            with pytest.raises(openai.BadRequestError) as bad:
                sdk.responses.create(**asked() | {member: value})
            assert bad.value.param == member
        with pytest.raises(openai.BadRequestError) as bad:
            sdk.responses.create(model="gpt")
        assert bad.value.param == "input" and not upstream.requests
        wrong = openai.OpenAI(api_key="sk-wrong", base_url=f"{gate.url}/v1")
        with pytest.raises(openai.AuthenticationError, match=r"http://\S+/keys"):
            wrong.responses.create(**asked())

    @pytest.mark.parametrize("model", ELSEWHERE)
    @pytest.mark.parametrize("member", ["previous_response_id", "prompt"])
    def test_name_what_the_provider_can_not_have(
        self, client: Client, upstream: Upstream, model: str, member: str
    ) -> None:
        value: Any = "resp_1" if member == "previous_response_id" else {"id": "pmpt_1"}
        reply = client("/v1/responses", asked(model) | {member: value})
        assert (reply.status, reply.param) == (400, member) and not upstream.requests

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("model", MODELS)
    def test_a_spent_budget_is_told_once_with_its_link(
        self, sdk: openai.OpenAI, gate: Gate, key: str, upstream: Upstream, model: str, stream: bool
    ) -> None:
        gate.limit("key", f"key-{key[-6:]}", "0", "day")
        gate.model("echo-1", "echo", capabilities=("chat",))
        answers: list[Any] = []
        sdk._client.event_hooks = {"response": [answers.append]}
        with pytest.raises(openai.RateLimitError, match=r"budget .* Ask for more at http") as stopped:
            sdk.with_options(max_retries=2).responses.create(**asked(model, stream=stream))
        assert stopped.value.code == "insufficient_quota" and len(answers) == 1 and not upstream.requests
        assert stopped.value.response.headers["x-should-retry"] == "false"

    def test_a_spent_budget_is_told_where_codex_shows_it(self, client: Client, gate: Gate, key: str) -> None:
        gate.limit("key", f"key-{key[-6:]}", "0", "day")
        reply = client("/v1/responses", asked(stream=True), **CODEX)
        assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/event-stream")
        created, failed = events_in(reply.body)
        assert (created["type"], failed["type"]) == ("response.created", "response.failed")
        assert created["response"]["id"] == failed["response"]["id"] and failed["response"]["status"] == "failed"
        told = failed["response"]["error"]
        assert told["code"] == "invalid_prompt" and "budget" in told["message"] and "http://" in told["message"]
        assert client("/v1/responses", asked(stream=False), **CODEX).status == 429
        assert client("/v1/responses", asked(stream=True), **{"User-Agent": "OpenAI/Python"}).status == 429

    @pytest.mark.parametrize(
        ("path", "model", "said"),
        [
            ("/v1/responses", "gpt", failure(400, "Too much.", code="context_length_exceeded")),
            ("/v1/chat/completions", "small", failure(400, "This model's maximum context length is 8192 tokens.")),
            ("/v1/messages", "claude", Answer({"type": "error", "error": {"type": "invalid_request_error",
                                               "message": "prompt is too long: 9 tokens > 8 maximum"}}, 400)),
        ],
    )  # fmt: skip
    def test_a_conversation_that_is_too_long_is_told_in_the_stream(
        self, client: Client, gate: Gate, upstream: Upstream, path: str, model: str, said: Any
    ) -> None:
        upstream.always(path, said)
        failed = events_in(client("/v1/responses", asked(model, stream=True)).body)[-1]
        assert failed["response"]["error"]["code"] == "context_length_exceeded"
        assert client("/v1/responses", asked(model)).status == 400
        assert [event.cost_nano for event in gate.events(2)] == [0, 0]

    def test_a_websocket_is_not_spoken(self, gate: Gate, client: Client) -> None:
        for key in (client.key, None):
            reply = Client(gate, key)("/v1/responses", method="GET", Connection="Upgrade", Upgrade="websocket")
            assert (reply.status, reply.body) == (426, b"")
        assert client("/v1/responses", method="GET").status == 405


class TestBytes:
    """Where both sides speak the dialect."""

    BODY = (
        b'{ "model":"gpt","input" : [{"role":"user","content":[{"type":"input_text","text":"one"},{"type":"new_part","x":1.50}]},'
        b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"abc"},{"type":"of_tomorrow","y":[1e2]}],'
        b'"brand_new":{"a": [1e2]}, "max_output_tokens" : 50,"tools":[{"type":"new_tool","n":"\\u00e9"},'
        b'{"type":"namespace","name":"n","tools":[]}], "include":["reasoning.encrypted_content"],"store":false }'
    )

    @pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses?beta=true"])
    def test_go_up_as_they_came(self, client: Client, upstream: Upstream, path: str) -> None:
        reply = client(path, self.BODY, **{"OpenAI-Beta": "responses=v9", "X-Other": "no"})
        assert reply.status == 200, reply.body
        assert upstream.last.body == self.BODY.replace(b'"gpt"', b'"gpt-up"') and upstream.last.path == "/v1/responses"
        assert upstream.last.headers["openai-beta"] == "responses=v9" and "x-other" not in upstream.last.headers

    def test_have_the_limit_that_was_held_for(self, client: Client, gate: Gate, key: str, upstream: Upstream) -> None:
        body = self.BODY.replace(b'"max_output_tokens" : 50,', b"")
        assert client("/v1/responses", body).status == 200
        assert upstream.last.body == body.replace(b'"gpt"', b'"gpt-up"'), "nothing limits the key"
        gate.limit("key", f"key-{key[-6:]}", "1")
        assert client("/v1/responses", body).status == 200
        assert upstream.last.body == body.replace(b'"gpt"', b'"gpt-up","max_output_tokens":1000')
        _, event = gate.events(2)
        assert event.hold_nano >= 1000 * 2000

    def test_steering_never_goes_up(self, client: Client, upstream: Upstream) -> None:
        assert client("/v1/responses", asked(provider="openai", top_logprobs=3)).status == 200
        assert upstream.last.json == asked("gpt-up", top_logprobs=3)

    def test_come_back_as_they_came(self, client: Client, upstream: Upstream) -> None:
        answer = (
            b'{"id":"r", "model" : "up","output":[{"type":"new","x":"\\u00e9"}],"status":"completed","new":[ ],'
            b'"usage":{"input_tokens":1,"output_tokens":2,"new":{"a":1}}}'
        )
        upstream.script("/v1/responses", Answer(answer))
        assert client("/v1/responses", asked()).body == answer.replace(b'"model" : "up"', b'"model":"gpt"')

    def test_of_a_stream_come_back_as_they_came(self, client: Client, upstream: Upstream) -> None:
        values = [
            {"type": "response.created", "response": response(status="in_progress", new=1)},
            {"type": "response.new_event", "of": ["é"]},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "of_tomorrow", "model": "x"}},
            {"type": "response.reasoning_text.delta", "delta": "hm", "new": True},
            {"type": "response.completed", "response": response(said("Hi"), new={"a": 1})},
        ]
        upstream.script("/v1/responses", numbered(*values))
        reply = client("/v1/responses", asked(stream=True))
        spelled = b"".join(numbered(*values).chunks)
        assert reply.body == spelled.replace(b'"model": "up"', b'"model":"gpt"')

    def test_of_an_error_come_back_as_they_came(self, client: Client, upstream: Upstream) -> None:
        told = '{"error": {"message": "No tool output", "type": "invalid_request_error", "param": "input", "new": 1}}'
        upstream.script("/v1/responses", Answer(told, 400))
        reply = client("/v1/responses", asked())
        assert (reply.status, reply.body.decode()) == (400, told)

    def test_thoughts_that_another_upstream_signed_do_not_go_up(self, client: Client, upstream: Upstream) -> None:
        items = [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "portico:sig"},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "theirs"},
        ]
        assert client("/v1/responses", asked() | {"input": [*ITEMS, *items]}).status == 200
        assert upstream.last.json["input"] == [*ITEMS, items[1]]


class TestCuts:
    @pytest.mark.parametrize("model", ["gpt", "small", "claude"])
    def test_end_with_a_failure_and_are_booked_by_what_came(
        self, client: Client, gate: Gate, upstream: Upstream, model: str
    ) -> None:
        upstream.script("/v1/responses", lambda request: responses(request, cut_after=6))
        upstream.script("/v1/messages", lambda request: messages(request, cut_after=4))
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=3))
        *found, error, failed = events_in(client("/v1/responses", asked(model, stream=True)).body)
        assert (error["type"], failed["type"]) == ("error", "response.failed")
        assert error["error"]["message"] == error["message"] == failed["response"]["error"]["message"]
        assert error["error"]["code"] == error["code"] == "upstream_cut" and "param" in error
        assert failed["response"]["id"] == found[0]["response"]["id"] and failed["response"]["model"] == model
        assert failed["response"]["status"] == "failed" and failed["response"]["error"]["code"] == "server_error"
        (event,) = gate.events()
        assert (event.outcome, event.error_code, event.estimated) == ("error", "upstream_cut", True)
        assert event.completion_tokens > 0 and event.cost_nano > 0

    @pytest.mark.parametrize("model", ["gpt", "small"])
    def test_raise_in_the_client(self, sdk: openai.OpenAI, upstream: Upstream, model: str) -> None:
        upstream.script("/v1/responses", lambda request: responses(request, cut_after=6))
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=3))
        with pytest.raises(openai.APIError):
            list(sdk.responses.create(**asked(model, stream=True)))

    @pytest.mark.parametrize("model", ["gpt", "small", "claude"])
    def test_before_the_first_word_are_errors_with_a_status(
        self, client: Client, gate: Gate, upstream: Upstream, model: str
    ) -> None:
        upstream.script("/v1/responses", lambda request: responses(request, cut_after=2))
        upstream.script("/v1/messages", lambda request: messages(request, cut_after=1))
        upstream.script("/v1/chat/completions", lambda request: chat(request, cut_after=0))
        reply = client("/v1/responses", asked(model, stream=True))
        assert (reply.status, reply.json["error"]["type"]) == (502, "upstream_error")
        assert gate.events()[0].cost_nano == 0

    ERRORS: tuple[dict[str, Any], ...] = (
        {"type": "error", "error": {"type": "server_error", "code": "odd", "message": "It broke."}},
        {"type": "error", "code": "odd", "message": "It broke.", "param": None},
        {"error": {"code": "odd", "message": "It broke."}},
        {
            "type": "response.failed",
            "response": response(status="failed", error={"code": "odd", "message": "It broke."}),
        },
    )

    @pytest.mark.parametrize("told", ERRORS)
    def test_by_an_error_of_the_upstream_have_its_words(
        self, client: Client, gate: Gate, upstream: Upstream, told: dict[str, Any]
    ) -> None:
        begun = {"type": "response.created", "response": response(status="in_progress")}
        word = {"type": "response.output_text.delta", "delta": "Hi"}
        upstream.script("/v1/responses", stream_of(begun, word, told))
        *_, last = events_in(client("/v1/responses", asked(stream=True)).body)
        assert last["response"]["error"] == {"code": "odd", "message": "It broke."}
        (event,) = gate.events()
        assert event.outcome == "error"
        if "response" in told:
            assert (event.prompt_tokens, event.cached_tokens, event.completion_tokens) == (12, 5, 3)

    def test_by_an_end_without_a_response_are_cuts(self, client: Client, upstream: Upstream) -> None:
        begun = {"type": "response.created", "response": response(status="in_progress")}
        word = {"type": "response.output_text.delta", "delta": "Hi"}
        upstream.script("/v1/responses", numbered(begun, word, {"type": "response.completed"}))
        *_, last = events_in(client("/v1/responses", asked(stream=True)).body)
        assert last["type"] == "response.failed"

    @pytest.mark.parametrize("told", ERRORS)
    def test_before_a_word_lead_to_another_provider(
        self, client: Client, gate: Gate, upstream: Upstream, told: dict[str, Any]
    ) -> None:
        gate.provider("second", "openai", base_url=upstream.url)
        gate.model("gpt", "openai", "second", capabilities=("chat",))
        upstream.script("/v1/responses", stream_of({"type": "response.created", "response": response()}, told))
        reply = client("/v1/responses", asked(stream=True))
        assert b"three" in reply.body and len(upstream.requests) == 2 and len(gate.events()) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            response(status="failed", error={"code": "odd", "message": "It broke."}, usage=None),
            response(status="in_progress", usage=None),
            {"error": {"message": "It broke."}},
            {"output": "none"},
            [],
        ],
    )
    def test_an_answer_that_is_none_is_a_failure_whatever_its_status(
        self, client: Client, gate: Gate, upstream: Upstream, answer: Any
    ) -> None:
        upstream.script("/v1/responses", Answer(answer))
        reply = client("/v1/responses", asked())
        assert (reply.status, reply.json["error"]["type"]) == (502, "upstream_error")
        assert gate.events()[0].cost_nano == 0


def test_an_answer_of_the_past_is_named_to_who_has_it(client: Client, gate: Gate, upstream: Upstream) -> None:
    gate.provider("second", "openai", base_url=upstream.url)
    gate.model("gpt", "up", "openai", "second", capabilities=("chat",))
    upstream.script("/v1/chat/completions", failure(500), failure(500))
    upstream.script("/v1/responses", failure(500))
    first = client("/v1/responses", asked()).json
    assert client("/v1/responses", asked(previous_response_id=first["id"])).status == 200
    assert [event.deployment_id for event in gate.events(2)] == ["deployment-gpt-second"] * 2
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions", *["/v1/responses"] * 3]


class TestAgents:
    """What Codex sends."""

    BODY: dict[str, Any] = {
        "model": "gpt", "stream": True, "store": False, "tool_choice": "auto", "parallel_tool_calls": True,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "thread-1", "reasoning": {"summary": "auto"},
        "client_metadata": {"x": "y"}, "text": {"verbosity": "low"},
        "input": [
            {"type": "message", "role": "developer", "id": "msg_0",
             "content": [{"type": "input_text", "text": "You are an agent."}]},
            {"type": "message", "role": "user", "id": "msg_1", "content": [{"type": "input_text", "text": "hello"}]},
        ],
        "tools": [
            *({"type": "function", "name": f"tool_{at}", "strict": False, "parameters": {"type": "object", "properties": {}}}
              for at in range(7)),
            {"type": "custom", "name": "apply_patch", "description": "Patches.",
             "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
            {"type": "namespace", "name": "mcp__files__", "description": "Files.",
             "tools": [{"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}}]},
            {"type": "web_search", "external_web_access": False},
            {"type": "tool_search"},
        ],
    }  # fmt: skip

    @pytest.mark.parametrize("model", MODELS)
    @pytest.mark.parametrize("stream", [True, False])
    def test_are_answered_whatever_is_behind_the_model(
        self, client: Client, gate: Gate, upstream: Upstream, key: str, model: str, stream: bool
    ) -> None:
        gate.limit("key", f"key-{key[-6:]}", "50")
        gate.model("echo-1", "echo", capabilities=("chat",))
        reply = client("/v1/responses", self.BODY | {"model": model, "stream": stream}, **CODEX)
        assert reply.status == 200, reply.body
        if model == "gpt":
            assert upstream.last.json == self.BODY | {"model": "gpt-up", "stream": stream, "max_output_tokens": 1000}
            return
        output = (events_in(reply.body)[-1]["response"] if stream else reply.json)["output"]
        if model == "echo-1":
            assert output[0]["content"][0]["text"] == "hello"
            return
        tools = upstream.last.json["tools"]
        tools = tools[0].get("functionDeclarations", tools)
        names = [tool.get("name") or tool["function"]["name"] for tool in tools]
        assert names == [*(f"tool_{at}" for at in range(7)), "apply_patch", "mcp__files__read"]
        called = {item["name"]: item for item in output if "name" in item}
        assert called["apply_patch"]["type"] == "custom_tool_call"
        assert (called["read"]["type"], called["read"]["namespace"]) == ("function_call", "mcp__files__")

    @pytest.mark.parametrize("stream", [True, False])
    def test_have_the_text_of_a_tool_back_as_it_was_written(
        self, client: Client, upstream: Upstream, stream: bool
    ) -> None:
        patch = "*** Begin Patch\n*** End Patch\n"
        call = {"type": "tool_use", "id": "toolu_1", "name": "apply_patch", "input": {"input": patch}}
        pieces = json.dumps(call["input"])
        upstream.script("/v1/messages", events_of(
            {"type": "message_start", "message": message()},
            {"type": "content_block_start", "index": 0, "content_block": call | {"input": {}}},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
              for piece in (pieces[:9], pieces[9:])),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 8}},
            {"type": "message_stop"},
        ) if stream else Answer(message(call, stop="tool_use")))  # fmt: skip
        reply = client("/v1/responses", self.BODY | {"model": "claude", "stream": stream})
        response = events_in(reply.body)[-1]["response"] if stream else reply.json
        (item,) = response["output"]
        assert (item["type"], item["name"], item["input"], item["call_id"]) == (
            "custom_tool_call", "apply_patch", patch, "toolu_1",
        )  # fmt: skip
        result = {"type": "custom_tool_call_output", "call_id": "toolu_1", "output": "Done!"}
        history = [*self.BODY["input"], item, result]
        assert client("/v1/responses", self.BODY | {"model": "claude", "input": history}).status == 200
        _, called, result = upstream.last.json["messages"]
        assert called["content"][0]["input"] == {"input": patch} and result["content"][0]["type"] == "tool_result"


def mutated(chance: random.Random) -> dict[str, Any]:
    """A body with fields, tools, items and parts that nobody knows."""
    body: dict[str, Any] = json.loads(json.dumps(TestAgents.BODY))

    def new(kind: str) -> dict[str, Any]:
        name = f"{kind}_{chance.randrange(10**6)}"
        return {"type": name, **{f"m{at}": chance.choice(ODD) for at in range(chance.randrange(4))}}

    for _ in range(chance.randrange(1, 6)):
        field = f"field_{chance.randrange(10**6)}"
        match chance.randrange(8):
            case 0:
                body[field] = chance.choice(ODD)
            case 1:
                body["tools"].insert(chance.randrange(len(body["tools"])), new("tool"))
            case 2:
                chance.choice(body["tools"])[field] = chance.choice(ODD)
            case 3:
                body["input"][-1]["content"].append(new("part"))
            case 4:
                body["input"].insert(chance.randrange(2), new("item"))
            case 5:
                body["input"][-1]["content"][0][field] = chance.choice(ODD)
            case 6:
                name = chance.choice(("reasoning", "text", "client_metadata"))
                body[name] = body[name] | {field: chance.choice(ODD)}
            case 7:
                body[chance.choice(("include", "metadata", "truncation", "stream_options", "moderation"))] = (
                    chance.choice(ODD)
                )
    body["stream"] = chance.random() < 0.5
    return body


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_refused_because_it_is_not_known(client: Client, gate: Gate, key: str, model: str) -> None:
    gate.limit("key", f"key-{key[-6:]}", "50")
    gate.model("echo-1", "echo", capabilities=("chat",))
    chance = random.Random(19)
    for _ in range(250):
        body = mutated(chance) | {"model": model}
        reply = client("/v1/responses", body)
        assert reply.status == 200, (reply.body, body)
