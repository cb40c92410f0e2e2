"""What is reserved for a chat is never less than what an upstream can charge for the bytes that are sent to it."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.gateway.dialects.openai import MESSAGE_TOKENS, OWN_BYTES
from app.gateway.dialects.openai_chat import FILE_TOKENS, ChatRequest
from app.gateway.errors import ApiError
from app.metering import pricing
from tests.examples import examples
from tests.gateway.dialects.calls import ADAPTERS, MODEL, UP, asked, charged, chat, names, sent_up, texts, values

BIG = base64.b64encode(b"0123456789" * 3_000).decode()
PNG = f"data:image/png;base64,{BIG}"
parts = (
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional={"cache_control": values})
    | st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": texts})
    | st.fixed_dictionaries({"type": st.text(max_size=8), "anything": values}).filter(
        lambda part: part["type"] not in ("text", "refusal", "file")
    )
    | st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.just({"url": "https://x.test/a.png"})})
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"])},
        optional={
            "content": st.none() | texts | st.lists(parts, max_size=3), "name": values, "tool_call_id": texts,
            "reasoning_content": texts, "anything": values,
            "tool_calls": st.lists(st.dictionaries(texts, values, max_size=2), max_size=2),
        },
    ),
    min_size=1, max_size=4,
)  # fmt: skip
FIXED = {"model", "messages", *ChatRequest.__struct_fields__, "api_base", "base_url", "api_key", "extra_headers"}
limits = st.none() | st.integers(1, 2**31)


@settings(max_examples=examples(150))
@given(
    said=messages,
    others=st.dictionaries(names.filter(lambda name: name not in FIXED), values, max_size=5),
    stream=st.booleans(),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 2]),
    provider=st.none() | st.text(min_size=1, max_size=250),
)
@example([{"role": "user", "content": "\\u4e2d" * 99}], {}, False, True, None, "中" * 250)
@example([{"role": "user", "name": "n" * 9_000}], {"documents": ["d" * 9_000]}, True, True, None, None)
def test_the_bound_is_never_less_than_a_token_for_each_byte_that_is_sent(
    said: list[Any], others: dict[str, Any], stream: bool, ascii: bool, indent: int | None, provider: str | None
) -> None:
    body = {"model": "small", "messages": said, "stream": stream, "provider": provider, **others}
    call = asked(json.dumps(body, ensure_ascii=ascii, indent=indent).encode())
    call.request.max_output = 2**31  # as the reserve may have it
    for field in ADAPTERS:
        sent = sent_up(call, field)
        assert call.bound.input >= charged(sent)
        if b"\\u" not in sent:
            assert call.bound.input >= len(sent)


def test_a_byte_more_anywhere_is_a_token_more() -> None:
    before = asked(chat()).bound.input
    for body in (
        chat("hi!"), chat(user="x"), chat(xy=1), {**chat(), "messages": [{"role": "user", "content": "hi", "name": "n"}]},
    ):  # fmt: skip
        grown = len(json.dumps(body)) - len(json.dumps(chat()))
        assert asked(body).bound.input == before + grown


def test_of_a_plain_body_its_bytes_count_and_sixteen_a_message() -> None:
    body = chat("one two three")
    assert asked(body).bound.input == len(json.dumps(body)) + 16 + OWN_BYTES + len(UP.upstream_model)


def with_media(*media: dict[str, Any]) -> dict[str, Any]:
    return chat([{"type": "text", "text": "look"}, *media])


SOUND = {"type": "input_audio", "input_audio": {"data": BIG, "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BIG}", "filename": "a.pdf"}}


@pytest.mark.parametrize(
    ("part", "data", "most"),
    [
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "high"}}, PNG, 700),
        ({"type": "image_url", "image_url": PNG}, PNG, 700),
        ({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}, "", 700),
        (SOUND, BIG, 300),
        ({"type": "audio_url", "audio_url": {"url": f"data:audio/ogg;base64,{BIG}"}}, f"data:audio/ogg;base64,{BIG}", 300),
        (FILE, FILE["file"]["file_data"], 9_000),
        ({"type": "file", "file": {"file_id": "file-1"}}, "", 9_000),
        ({"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}}, "", 9_000),
        ({"type": "image_url", "image_url": {"url": f"data:text/plain;base64,{BIG}"}}, f"data:text/plain;base64,{BIG}", 9_000),
        ({"type": "thinking", "thinking": "hm", "signature": BIG}, "", 0),
        ({"type": "of_tomorrow", "somewhere": "https://x.test/a.png"}, "", 700),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_data_of_media_is_replaced_by_what_such_a_part_can_be(part: dict[str, Any], data: str, most: int) -> None:
    model = msgspec.structs.replace(MODEL, context_window=9_000)
    body = with_media(part)
    bytes_ = len(json.dumps(body)) + MESSAGE_TOKENS + OWN_BYTES + len(UP.upstream_model)
    assert asked(body, model).bound.input == bytes_ - len(data) + most


def test_a_file_leaves_room_for_an_answer() -> None:
    model = msgspec.structs.replace(MODEL, context_window=9_000, max_output_tokens=2_000)
    bound = asked(with_media(FILE), model).bound
    assert bound.input > 9_000
    assert pricing.assumed_output(model, bound) == 2_000
    assert bound.usual_input < 100 + OWN_BYTES


def test_a_file_for_a_model_of_unknown_length_counts_its_bytes_and_much_at_least() -> None:
    empty = asked(with_media({"type": "file", "file": {"file_data": ""}})).bound.input
    assert asked(with_media({"type": "file", "file": {"file_data": "x" * 5_000}})).bound.input == empty
    assert asked(with_media({"type": "file", "file": {"file_data": "x" * 500_000}})).bound.input == (
        empty - FILE_TOKENS + 500_000
    )


def test_a_spoken_answer_in_history_is_heard_again() -> None:
    body = chat()
    body["messages"].append({"role": "assistant", "audio": {"id": "audio_1"}})
    bytes_ = len(json.dumps(body)) + 2 * MESSAGE_TOKENS + OWN_BYTES + len(UP.upstream_model)
    assert asked(body).bound.input == bytes_ + 300


@given(content=st.lists(values, max_size=4) | values)
def test_a_content_is_taken_whole_or_refused_by_its_place(content: Any) -> None:
    try:
        sent = sent_up(asked(chat(content)), "max_tokens")
    except ApiError as error:
        told: Any = (error.status, (error.param or "").partition("[")[0])
    else:
        told = json.loads(sent)["messages"][0]["content"]
    assert told in ((400, "messages"), content)


@given(st.integers(0, 2), limits, limits, st.none() | st.integers(1, 2**31))
@example(2, 1, 5_000, None)
@example(2, 5_000, 1, None)
@example(1, None, None, 100)
def test_one_limit_goes_up_the_smaller_one_in_the_member_that_the_upstream_knows(
    given: int, completion: int | None, most: int | None, reserved: int | None
) -> None:
    fields = {"max_completion_tokens": completion, "max_tokens": most}
    fields = dict(list(fields.items())[:given])
    call = asked(chat(**fields))
    asked_for = min((limit for limit in fields.values() if limit is not None), default=None)
    assert call.bound.output == call.request.max_output == asked_for
    if asked_for is None:
        call.request.max_output = reserved
    for field in ADAPTERS:
        sent = json.loads(sent_up(call, field))
        found = {name: sent[name] for name in ADAPTERS if name in sent}
        expected = asked_for if asked_for is not None else reserved
        assert found == ({} if expected is None else {field: expected})


@pytest.mark.parametrize("fields", [{"max_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": 5}])
def test_a_limit_of_nothing_is_of_one_token_for_some_upstreams_take_it_for_none(fields: dict[str, int]) -> None:
    assert asked(chat(**fields)).bound.output == 1


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [-1, 2**31 + 1, 2**63, 2**64, 10**30, 100.0, 1.5, "5", True, [], {}])
def test_a_limit_that_is_none_is_refused(field: str, limit: Any) -> None:
    with pytest.raises(ApiError) as refused:
        asked(chat(**{field: limit}))
    assert (refused.value.status, refused.value.param) == (400, field)


def test_a_prediction_may_be_charged_as_output_once_an_answer() -> None:
    prediction = {"type": "content", "content": "x" * 1_000}
    bound = asked(chat(prediction=prediction, n=2)).bound
    assert (bound.predicted, bound.answers) == (len(json.dumps(prediction)), 2)
    assert asked(chat(prediction=None)).bound.predicted == 0


def test_answers_that_are_only_chosen_from_count_too() -> None:
    assert asked(chat(n=2, best_of=5)).bound.answers == 5
    assert asked(chat(n=3, best_of=None)).bound.answers == 3


def opening(*messages: dict[str, Any]) -> str:
    call = asked({"model": "small", "messages": list(messages)})
    return call.dialect.conversation_id(call.request, "")


RULES, QUESTION = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["assistant", "user"]), "content": texts}), max_size=4))
def test_a_conversation_keeps_its_name_while_it_grows(more: list[dict[str, Any]]) -> None:
    assert opening(RULES, QUESTION, *more) == opening(RULES, QUESTION)


def test_conversations_that_begin_otherwise_have_other_names() -> None:
    others = [
        opening(RULES, QUESTION), opening(QUESTION), opening(RULES, {"role": "user", "content": "Who?"}),
        opening(RULES, {"role": "user", "content": "Why?" + "x" * 3_000}),
        opening(RULES, {"role": "user", "content": "Why?" + "x" * 4_000}),
    ]  # fmt: skip
    assert len(set(others)) == len(others)
    assert opening(RULES, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}) == opening(RULES, QUESTION)


def test_what_only_a_conversations_home_understands_is_left_out_elsewhere() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = {
        "role": "assistant", "content": [thought, {"type": "text", "text": "So."}], "reasoning_details": [1],
        "tool_calls": [{"id": "1", "type": "function", "extra_content": {"x": 1}}],
    }  # fmt: skip
    call = asked({"model": "small", "messages": [QUESTION, said]})
    assert call.dialect.is_bound(call.request)
    call.dialect.leave_home(call.request)
    assert not call.dialect.is_bound(call.request)
    assert json.loads(call.request.members["messages"]) == [
        QUESTION,
        {
            "role": "assistant", "content": [{"type": "text", "text": "So."}],
            "tool_calls": [{"id": "1", "type": "function"}],
        },
    ]  # fmt: skip


def test_a_long_conversation_leaves_its_home_too() -> None:
    said = {"role": "assistant", "content": "x" * 70_000, "reasoning_details": [1]}
    call = asked({"model": "small", "messages": [QUESTION, said]})
    assert call.dialect.is_bound(call.request)
    call.dialect.leave_home(call.request)
    assert not call.dialect.is_bound(call.request)


def test_a_conversation_that_is_not_bound_goes_elsewhere_byte_for_byte() -> None:
    call = asked(b'{"model": "small", "messages":  [{"role":"user" ,"content":"hi"}]}')
    before = bytes(call.request.members["messages"])
    call.dialect.leave_home(call.request)
    assert bytes(call.request.members["messages"]) == before
