"""What is reserved for a body is never less than what an upstream can charge for the bytes that are sent to it."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.directory import CallerRecord, Deployment, Model, Price
from app.domain.payers import SHORTEST_PROMPT
from app.gateway.admission import admit
from app.gateway.call import Call
from app.gateway.dialects.openai import MESSAGE_TOKENS, OWN_BYTES
from app.gateway.dialects.openai_chat import FILE_TOKENS, ChatRequest
from app.gateway.endpoints import CHAT, EMBEDDINGS, Endpoint
from app.gateway.errors import ApiError
from app.gateway.runtime import Runtime
from app.metering import pricing
from app.providers import adapter
from app.providers.addresses import AddressPolicy
from app.providers.openai import OpenAI, OpenAISettings
from app.runtime.jsonbody import object_of
from config import Gateway
from tests.examples import examples

UP = Deployment(id="d", provider_id="p", upstream_model="served/under-another-name")
MODEL = Model(
    id="m", name="small", capabilities=("chat", "embeddings"), created=1, deployments=(UP,), image_tokens=700,
    audio_tokens=300,
)  # fmt: skip
CALLER = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})
POLICY = AddressPolicy(allow_private=True, own_ports=frozenset())
VLLM: Any = adapter("vllm")
ADAPTERS: dict[str, OpenAI] = {
    "max_completion_tokens": OpenAI(OpenAISettings(), policy=POLICY),
    "max_tokens": VLLM(VLLM.Settings(), policy=POLICY),
}
BIG = base64.b64encode(b"0123456789" * 3_000).decode()
PNG = f"data:image/png;base64,{BIG}"


def asked(
    body: bytes | dict[str, Any], model: Model = MODEL, endpoint: Endpoint = CHAT, caller: CallerRecord = CALLER
) -> Call:
    """The call that a body makes."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    routes = SimpleNamespace(model_for=lambda _: model, endpoint_active=lambda _: True)
    runtime = SimpleNamespace(routes=routes, config=SimpleNamespace(gateway=Gateway()))
    return admit(cast(Runtime, runtime), caller, endpoint, sent, id="r")


def sent_up(call: Call, field: str) -> bytes:
    """The bytes that go to an upstream whose limit is called `field`."""
    return b"".join(object_of(ADAPTERS[field]._members(call.request, UP)))


def chat(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": content}], **fields}


def charged(body: bytes) -> int:
    """What an upstream charges that takes every byte of UTF-8 for a token; it reads what JSON escapes."""

    def text(value: Any) -> int:
        return sum(len(char.encode("utf-8", "surrogatepass")) for char in value)

    def tokens(value: Any) -> int:
        match value:
            case str():
                return text(value) + 2
            case dict():
                return 1 + sum(text(name) + 4 + tokens(inner) for name, inner in value.items())
            case list():
                return 1 + sum(1 + tokens(inner) for inner in value)
            case _:
                return 1

    return tokens(json.loads(body))


texts = st.text(max_size=30) | st.sampled_from(["\\u4e2d", "\\\\u0041", "\\", "中文字" * 5, "😀é", '"\n\t', "x" * 500])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
names = st.text(min_size=1, max_size=12) | st.sampled_from(["documents", "prediction", "functions", "name", "中"])
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


def embedding(given: Any, **fields: Any) -> Call:
    return asked({"model": "small", "input": given, **fields}, endpoint=EMBEDDINGS)


@given(
    st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5) | st.text(min_size=1, max_size=50),
    st.dictionaries(names.filter(lambda name: name not in ("user", "input", "dimensions")), values, max_size=3),
)
def test_what_is_embedded_is_bounded_by_its_bytes(items: Any, others: dict[str, Any]) -> None:
    call = embedding(items, **others)
    assert call.bound.input >= charged(sent_up(call, "max_tokens"))


def test_the_smallest_call_holds_what_a_budget_must_have_not_to_be_used_up() -> None:
    model = Model(id="m", name="m", capabilities=("embeddings",), created=1, deployments=(Deployment("d", "p", "u"),))
    caller = msgspec.structs.replace(CALLER, models={"m": "s"})
    smallest = asked(b'{"model":"m","input":[1]}', model, EMBEDDINGS, caller).bound.input
    assert smallest == SHORTEST_PROMPT


def test_of_a_list_of_tokens_each_is_one() -> None:
    without = embedding([1]).bound.input
    assert embedding([123456] * 500).bound.input == without + 499
    assert embedding([[123456] * 500, [7]]).bound.input == without + 500
    assert embedding([5], prompt="x" * 50).bound.input >= without + 50
