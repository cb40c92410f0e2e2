"""OpenAI's Responses as a dialect: what of a request is held for, and what clients read of failures."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import Model, Price
from app.gateway import dialects
from app.gateway.dialects.openai import MESSAGE_TOKENS, OWN_BYTES
from app.gateway.endpoints import RESPONSES
from app.gateway.errors import ApiError, bad_request, upstream_failed
from app.metering import pricing
from app.providers.base import UpstreamError
from app.providers.openai_responses import body_of, event_of
from tests.gateway.dialects.calls import UP
from tests.gateway.dialects.calls import asked as asked_of

BIG = base64.b64encode(b"0123456789" * 3_000).decode()
MODEL = Model(
    id="m", name="small", capabilities=("chat",), created=1, deployments=(UP,), image_tokens=700, audio_tokens=300,
    context_window=9_000,
)  # fmt: skip
DIALECT = dialects.dialect("openai_responses")


def body(input: Any = "one two", **more: Any) -> dict[str, Any]:
    return {"model": "small", "input": input, **more}


def asked(body: dict[str, Any] | bytes) -> Any:
    """The call that a body makes."""
    return asked_of(body, model=MODEL, endpoint=RESPONSES)


def parts(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


class TestWhatIsReserved:
    @given(st.dictionaries(words := st.text(min_size=1, max_size=9), words, max_size=3), st.lists(words, max_size=3))
    def test_is_never_less_than_the_bytes_that_are_sent(self, more: dict[str, str], said: list[str]) -> None:
        told = {f"x_{name}": value for name, value in more.items()} | body(
            parts(*({"type": "input_text", "text": text} for text in said))
        )
        call = asked(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace"))
        call.request.max_output = 2**31
        assert call.bound.input >= len(b"".join(body_of(call.request, UP.upstream_model, {}, ())))

    @pytest.mark.parametrize(
        ("item", "data", "most"),
        [
            (parts({"type": "input_image", "image_url": f"data:image/png;base64,{BIG}"}), f"data:image/png;base64,{BIG}", 700),
            (parts({"type": "input_image", "image_url": "https://x.test/a.png"}), "", 700),
            (parts({"type": "input_image", "file_id": "f"}), "", 700),
            (parts({"type": "input_image", "image_url": f"data:application/pdf;base64,{BIG}"}),
             f"data:application/pdf;base64,{BIG}", 9_000),
            (parts({"type": "input_file", "file_data": BIG}), BIG, 9_000),
            (parts({"type": "input_file", "file_id": "f"}), "", 9_000),
            (parts({"type": "input_audio", "input_audio": {"data": BIG, "format": "wav"}}), BIG, 300),
            (parts({"type": "of_tomorrow", "x": 1}), "", 700),
            ([{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "f"}]}], "", 700),
            ([{"type": "reasoning", "summary": [], "encrypted_content": BIG}], "", 0),
            ([{"type": "item_reference", "id": "msg_1"}], "", 9_000),
        ],
    )  # fmt: skip
    def test_the_data_of_media_is_replaced_by_what_such_a_part_can_be(self, item: Any, data: str, most: int) -> None:
        told = body(item)
        size = len(json.dumps(told)) + 2 * MESSAGE_TOKENS + OWN_BYTES + len(UP.upstream_model)
        assert asked(told).bound.input == size - len(data) + most

    @pytest.mark.parametrize("more", [{"previous_response_id": "resp_1"}, {"prompt": {"id": "pmpt_1"}}])
    def test_covers_what_the_upstream_has_of_the_past(self, more: Any) -> None:
        bound = asked(body(**more)).bound
        assert bound.unseen == 9_000 and bound.reads_more

    def test_what_tools_of_the_upstream_read_is_believed(self) -> None:
        assert asked(body(tools=[{"type": "web_search"}])).bound.reads_more
        assert not asked(
            body(tools=[{"type": "function", "name": "f"}, {"type": "namespace", "name": "n"}])
        ).bound.reads_more

    @pytest.mark.parametrize(
        ("fields", "member"),
        [
            ({"tools": [{"type": "web_search"}]}, None), ({"service_tier": "auto"}, None), ({"brand_new": 1}, None),
            ({"service_tier": "flex"}, "service_tier"), ({"service_tier": "priority"}, None), ({"service_tier": "fast"}, None),
            ({"plugins": [1]}, "plugins"),
        ],
    )  # fmt: skip
    def test_what_is_known_to_cost_more_and_has_no_price_is_named(self, fields: Any, member: str | None) -> None:
        price = Price(id="p", rates={"input_per_mtok": 2}, tiers={"priority": {"input_per_mtok": 4}})
        assert pricing.unpriced_member(price, asked(body(**fields)).bound) == member

    def test_the_tier_that_is_served_by_another_name_has_its_price(self) -> None:
        price = Price(id="p", rates={}, tiers={"priority": {}})
        bound = asked(body(service_tier="fast")).bound
        assert (
            pricing.tier_of(price, bound, "priority") == "priority" and pricing.tier_of(price, bound, "default") is None
        )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"), ({"conversation": "c"}, "conversation"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"input": None}, "input"), ({"input": 7}, "input"), ({"input": [7]}, "input[0]"), ({"input": [{"type": 7}]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"), ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"temperature": 3}, "temperature"), ({"api_key": "x"}, "api_key"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: Any, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        asked(body(**{"input": "hi"} | fields))
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("fields", [{"background": False}, {"conversation": None}, {"tools": None},
                                    {"max_output_tokens": None},
                                    {"input": []}, {"input": [{"role": "user", "content": None}]},
                                    {"instructions": []}])  # fmt: skip
def test_what_says_nothing_is_no_fault(fields: Any) -> None:
    asked(body(**fields))


class TestFailures:
    def events(self, sent: bytes) -> list[dict[str, Any]]:
        return [json.loads(event.partition("data: ")[2]) for event in sent.decode().split("\n\n") if event]

    def test_a_cut_goes_on_behind_what_was_sent(self) -> None:
        head = {"id": "resp_1", "created_at": 17, "model": "small", "tools": ["x" * 9_000]}
        first = event_of("response.created", 0, response=head) + event_of("response.in_progress", 1, response=head)
        last = event_of("response.output_text.delta", 7, delta="response.created")
        error, failed = self.events(DIALECT.cut("It broke.", None, (first, first + last)))
        assert (error["sequence_number"], failed["sequence_number"]) == (8, 9)
        assert error["error"] == {
            "type": "upstream_error",
            "code": "upstream_cut",
            "message": "It broke.",
            "param": None,
        }
        response = failed["response"]
        assert (response["id"], response["created_at"], response["model"], response["tools"]) == (
            "resp_1",
            17,
            "small",
            [],
        )

    def test_a_cut_has_the_code_of_its_upstream(self) -> None:
        *_, failed = self.events(DIALECT.cut("x", UpstreamError("x", code="rate_limit_exceeded")))
        assert failed["response"]["error"]["code"] == "rate_limit_exceeded" and failed["response"]["id"].startswith(
            "resp_"
        )

    @pytest.mark.parametrize("sent", [b"", b": x\n\n", b"data: [DONE]\n\n", b'data: {"response": 7}\n\n', b"\xff"])
    def test_a_cut_can_be_told_behind_anything(self, sent: bytes) -> None:
        *_, error, failed = self.events(DIALECT.cut("x", None, (sent, sent)))
        assert (error["type"], failed["type"]) == ("error", "response.failed")

    def test_a_cut_of_nothing_begins_the_response_and_tells_what_was_refused(self) -> None:
        error = ApiError(400, "x", None, "maximum context length is 8192 tokens")
        began, told, failed = self.events(DIALECT.cut(error.message, error))
        assert [one["sequence_number"] for one in (began, told, failed)] == [0, 1, 2]
        assert began["response"]["id"] == failed["response"]["id"]
        assert failed["response"]["error"]["code"] == "context_length_exceeded"

    @pytest.mark.parametrize(
        ("error", "agent", "code"),
        [
            (ApiError(429, "x", "insufficient_quota", "Spent."), "codex", "invalid_prompt"),
            (ApiError(403, "x", "model_not_priced", "No price."), "codex", "invalid_prompt"),
            (ApiError(429, "x", "insufficient_quota", "Spent."), "openai-python", None),
            (ApiError(429, "x", "rate_limit_exceeded", "Slow."), "codex", None),
            (ApiError(400, "x", "context_length_exceeded", "Long."), None, "context_length_exceeded"),
            (bad_request("prompt is too long: 9 tokens > 8 maximum"), None, "context_length_exceeded"),
            (bad_request("Invalid 'temperature'."), None, None), (upstream_failed("maximum context"), None, None),
        ],
    )  # fmt: skip
    def test_a_refusal_is_a_stream_where_it_is_read_only_there(
        self, error: ApiError, agent: Any, code: str | None
    ) -> None:
        told = DIALECT.refusal_stream(error, "small", agent)
        if code is None:
            assert told is None
            return
        created, failed = self.events(told or b"")
        assert (created["type"], failed["type"]) == ("response.created", "response.failed")
        assert failed["response"]["error"] == {"code": code, "message": error.message}

    def test_an_error_of_an_upstream_of_its_own_is_as_it_came(self) -> None:
        error = ApiError(400, "x", None, "m", original=("openai_responses", b'{"error":{}}'))
        assert DIALECT.error(error, "r") == b'{"error":{}}'
        error.original = ("anthropic_messages", b"{}")
        assert json.loads(DIALECT.error(error, "r"))["error"]["message"] == "m"


class TestAConversation:
    THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}

    def test_leaves_home_without_what_only_home_understands(self) -> None:
        said = {"type": "message", "id": "msg_1", "role": "assistant", "content": "yes", "new": 1}
        request = asked(body([*parts(), self.THOUGHT, said])).request
        assert DIALECT.is_bound(request) and request.raw is not None
        DIALECT.leave_home(request)
        said.pop("id")
        assert json.loads(request.members["input"]) == [*parts(), said] == request.parsed.input
        assert request.raw is None and not DIALECT.is_bound(request)

    def test_that_is_long_is_bound_too(self) -> None:
        request = asked(body([*parts({"type": "input_text", "text": "x" * 70_000}), self.THOUGHT])).request
        assert DIALECT.is_bound(request)
        DIALECT.leave_home(request)
        assert not DIALECT.is_bound(request)

    def test_is_known_by_its_cache_its_session_or_its_opening(self) -> None:
        one, other = asked(body("one", instructions="i")).request, asked(body("two", instructions="i")).request
        assert DIALECT.conversation_id(one, "s") == DIALECT.conversation_id(other, "s") == "session s"
        assert DIALECT.conversation_id(one, "") != DIALECT.conversation_id(other, "")
        longer = asked(
            body([{"role": "user", "content": "one"}, {"role": "user", "content": "more"}], instructions="i")
        ).request
        assert DIALECT.conversation_id(one, "") == DIALECT.conversation_id(longer, "")
        cached = asked(body(prompt_cache_key="k")).request
        assert DIALECT.conversation_id(cached, "s") == 'cache "k"'
        after = asked(body(previous_response_id="resp_1", prompt_cache_key="k")).request
        assert DIALECT.conversation_id(after, "s") == DIALECT.conversation_after("resp_1")
        assert DIALECT.is_bound(after) and DIALECT.kept_upstream(after) == "previous_response_id"
