"""Pictures, by the official SDK and on real sockets: made and edited, whole and streamed, charged by number or by tokens."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import openai
import pytest

from app.directory import Price
from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.upstream import (
    GARBAGE,
    INVALID_JSON,
    WRONG_TYPE,
    Answer,
    Behaviour,
    Hang,
    Stream,
    Upstream,
    failure,
)

PATH, EDITS = "/v1/images/generations", "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
AN_IMAGE = Price(id="price-image", rates={"per_image": 40_000_000})  # 0.04
A_TOKEN = Price(
    id="price-token",
    rates={"input_per_mtok": 5_000_000_000, "image_input_per_mtok": 10_000_000_000, "image_output_per_mtok": 40_000_000_000},
)  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
B64 = base64.b64encode(PNG).decode()
TOLD = {"input_tokens": 11, "input_tokens_details": {"text_tokens": 8, "image_tokens": 3}, "output_tokens": 272,
        "total_tokens": 283}  # fmt: skip
TOLD_COST = 8 * 5_000 + 3 * 10_000 + 272 * 40_000


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("dall-e", "up", price=AN_IMAGE, capabilities=("images",), max_output_tokens=None)
    gate.model("gpt-image", "up", price=A_TOKEN, capabilities=("images",), max_output_tokens=None)
    return gate


def pictures(*data: dict[str, Any], told: Any = None, **more: Any) -> dict[str, Any]:
    answer = {"created": 1, "data": [*data]} | more
    return answer if told is None else answer | {"usage": told}


def one(**more: Any) -> Answer:
    return Answer(pictures({"b64_json": B64}, told=TOLD, **more))


def asking(model: str = "dall-e", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "A small red boat"} | more


def form(client: Client, model: str = "gpt-image", files: Any = (("image", PNG),), **fields: str) -> Reply:
    """A form with pictures, sent without any library's opinion of it."""
    fields = {"model": model, "prompt": "Make it blue"} | fields
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
             for name, text in fields.items()]  # fmt: skip
    for name, content in files:
        head = (
            f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        parts.append(head.encode() + content + b"\r\n")
    body = b"".join(parts) + b"--b--\r\n"
    return client(EDITS, body, "POST", **{"Content-Type": "multipart/form-data; boundary=b"})


def test_pictures_by_address_are_charged_by_their_number(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    addresses = [{"url": f"https://images.example/{n}.png", "revised_prompt": 'A "model" boat'} for n in range(2)]
    upstream.script(PATH, Answer(pictures(*addresses)))
    made = sdk.images.generate(
        model="dall-e", prompt="A small red boat", n=2, size="1792x1024", quality="hd", style="vivid", response_format="url"
    )  # fmt: skip
    assert [picture.url for picture in made.data or ()] == [address["url"] for address in addresses]
    assert upstream.requests[-1].json == {
        "model": "dall-e-up", "prompt": "A small red boat", "n": 2, "size": "1792x1024", "quality": "hd",
        "style": "vivid", "response_format": "url",
    }  # fmt: skip
    (event,) = gate.events()
    assert (event.images, event.cost_nano, event.estimated) == (2, 80_000_000, False)
    assert (event.endpoint, event.api_type, event.stream) == (PATH, "images", False)


def test_pictures_within_the_answer_are_charged_by_the_tokens_that_are_told(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI
) -> None:
    upstream.script(PATH, one(quality="low", size="1024x1024"))
    made = sdk.images.generate(model="gpt-image", prompt="A small red boat", quality="low", output_compression=50)
    assert made.data and base64.b64decode(made.data[0].b64_json or "") == PNG
    assert made.usage and made.usage.output_tokens == 272
    (event,) = gate.events()
    assert (event.prompt_tokens, event.image_input_tokens) == (11, 3)
    assert (event.completion_tokens, event.image_output_tokens, event.images) == (272, 272, 1)
    assert (event.cost_nano, event.estimated) == (TOLD_COST, False)


def test_tokens_are_estimated_where_nobody_tells_them(gate: Gate, upstream: Upstream, client: Client) -> None:
    for fields, tokens in (
        ({"size": "1024x1024", "quality": "low"}, 272), ({"size": "1024x1024", "quality": "medium"}, 1056),
        ({"size": "1024x1536"}, 6240), ({}, 6240), ({"quality": "high", "size": "2048x2048"}, 16_640),
    ):  # fmt: skip
        upstream.script(PATH, Answer(pictures({"b64_json": B64}, {"b64_json": B64})))
        assert client(PATH, asking("gpt-image", n=2, **fields)).status == 200
        event = gate.events()[-1]
        assert (event.image_output_tokens, event.estimated) == (2 * tokens, True)
        assert event.cost_nano == event.prompt_tokens * 5_000 + 2 * tokens * 40_000


def event_of(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "b64_json": B64, "created_at": 1, "size": "1024x1024", "quality": "low",
            "background": "opaque", "output_format": "png", **more}  # fmt: skip


PARTIAL = event_of("image_generation.partial_image", partial_image_index=0)
COMPLETED = event_of("image_generation.completed", usage=TOLD)


def test_a_picture_is_streamed_as_it_is_made(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    named = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in (PARTIAL, COMPLETED)]
    upstream.script(PATH, Stream(named, done=False))
    stream = sdk.images.generate(model="gpt-image", prompt="A small red boat", stream=True, partial_images=1)
    assert [event.type for event in stream] == ["image_generation.partial_image", "image_generation.completed"]
    assert upstream.requests[-1].json["stream"] is True
    (event,) = gate.events()
    assert (event.images, event.image_output_tokens, event.cost_nano) == (1, 272, TOLD_COST)
    assert (event.stream, event.estimated, event.outcome) == (True, False, "ok")


def test_names_of_events_are_kept(gate: Gate, upstream: Upstream, client: Client) -> None:
    named = b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in (PARTIAL, COMPLETED)
    )
    upstream.script(PATH, Stream([named], done=False))
    assert client(PATH, asking("gpt-image", stream=True)).body == named


@pytest.mark.parametrize(
    ("chunks", "told"),
    [([PARTIAL], b"upstream_cut"), ([PARTIAL, {"error": {"message": "the safety system"}}], b"the safety system")],
)
def test_a_stream_that_is_cut_tells_so_and_is_booked(
    gate: Gate, upstream: Upstream, client: Client, chunks: Any, told: bytes
) -> None:
    upstream.script(PATH, Stream(chunks, cut_after=len(chunks)))
    answer = client(PATH, asking("gpt-image", stream=True, size="1024x1024", quality="low", partial_images=1))
    assert answer.status == 200 and told in answer.body
    (event,) = gate.events()
    assert (event.outcome, event.images, event.image_output_tokens) == ("error", 0, 372)
    assert (event.estimated, event.cost_nano) == (True, event.prompt_tokens * 5_000 + 372 * 40_000)


def test_a_whole_answer_to_a_wish_for_a_stream_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, one())
    answer = client(PATH, asking("gpt-image", stream=True))
    assert (answer.headers["content-type"], answer.json["data"]) == ("application/json", [{"b64_json": B64}])
    assert gate.events()[0].cost_nano == TOLD_COST


def test_several_megabytes_go_through_whole_and_streamed(gate: Gate, upstream: Upstream, client: Client) -> None:
    large = base64.b64encode(random.Random(7).randbytes(6 << 20)).decode()
    upstream.script(PATH, Answer(pictures({"b64_json": large}, told=TOLD)))
    assert client(PATH, asking("gpt-image")).json["data"][0]["b64_json"] == large
    upstream.script(PATH, Stream([COMPLETED | {"b64_json": large}], done=False))
    assert large.encode() in client(PATH, asking("gpt-image", stream=True)).body
    assert [event.cost_nano for event in gate.events(2)] == [TOLD_COST] * 2


@pytest.mark.both_lanes
def test_a_picture_is_edited_with_a_mask(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(EDITS, one())
    made = sdk.images.edit(
        model="gpt-image", prompt="Make it blue", image=[("a.png", PNG), ("b.png", PNG)], mask=("mask.png", PNG), n=1,
        input_fidelity="high",
    )  # fmt: skip
    assert made.data and made.data[0].b64_json == B64
    sent = upstream.requests[-1]
    assert sent.path == EDITS
    assert b'name="model"\r\n\r\ngpt-image-up\r\n' in sent.body
    assert sent.body.count(b'name="image[]"; filename="') == 2 and b'name="mask"; filename="mask.png"' in sent.body
    assert sent.body.count(PNG) == 3 and b'name="input_fidelity"\r\n\r\nhigh' in sent.body
    (event,) = gate.events()
    assert (event.endpoint, event.api_type, event.cost_nano) == (EDITS, "images", TOLD_COST)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client's own
def test_a_picture_is_varied(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(VARIATIONS, one())
    made = sdk.images.create_variation(model="gpt-image", image=("a.png", PNG), n=1, size="256x256")
    assert made.data and made.data[0].b64_json == B64
    sent = upstream.requests[-1]
    assert sent.path == VARIATIONS and sent.body.count(PNG) == 1 and b'name="prompt"' not in sent.body
    (event,) = gate.events()
    assert (event.endpoint, event.api_type, event.cost_nano) == (VARIATIONS, "images", TOLD_COST)


def test_an_edit_is_streamed(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    events = [event_of("image_edit.partial_image", partial_image_index=0), event_of("image_edit.completed", usage=TOLD)]
    upstream.script(EDITS, Stream(events, done=False))
    stream = sdk.images.edit(model="gpt-image", prompt="Make it blue", image=("a.png", PNG), stream=True)
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]
    assert gate.events()[0].cost_nano == TOLD_COST


def test_an_edit_without_usage_is_estimated(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(EDITS, Answer(pictures({"url": "https://images.example/1.png"})))
    assert form(client, quality="low", size="1024x1024", provider="up", unknown="kept").status == 200
    assert b'name="provider"' not in upstream.requests[-1].body and b"kept" in upstream.requests[-1].body
    (event,) = gate.events()
    assert (event.prompt_tokens, event.image_output_tokens, event.estimated) == (1024 + 3, 272, True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (GARBAGE, ""), (INVALID_JSON, ""), (WRONG_TYPE, ""), (failure(500), ""), (Answer({}), ""), (Answer([]), ""),
        (Answer({"error": {"message": "overloaded"}}), "overloaded"), (Answer(pictures()), ""),
        (Answer(pictures({"revised_prompt": "A boat"})), ""), (Answer(pictures({"b64_json": ""})), ""),
        (Answer({"data": "none"}), ""), (Answer(pictures({"url": 7})), ""),
        (Answer(pictures({"b64_json": B64}), cut_after=300), ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [PATH, EDITS])
def test_an_answer_without_a_picture_costs_nothing_and_the_next_deployment_is_asked(
    gate: Gate, upstream: Upstream, client: Client, said: Behaviour, message: str, path: str
) -> None:
    def ask(client: Client, model: str) -> Reply:
        return client(path, asking(model)) if path == PATH else form(client, model)

    upstream.script(path, said)
    answer = ask(client, "gpt-image")
    assert answer.status == 502 and message in answer.json["error"]["message"]
    assert (gate.events()[0].cost_nano, gate.events()[0].outcome) == (0, "error")
    gate.provider("second", base_url=upstream.url)
    gate.model("both", "up", "second", price=A_TOKEN, capabilities=("images",))
    upstream.script(path, said, one())
    assert ask(Client(gate, gate.key()), "both").json["data"] == [{"b64_json": B64}]
    (_, event) = gate.events(2)
    assert (event.attempt, event.cost_nano, event.provider_id) == (2, TOLD_COST, "provider-second")


def test_a_refusal_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, failure(400, "the safety system", code="moderation_blocked"))
    answer = client(PATH, asking())
    assert (answer.status, answer.json["error"]["code"]) == (400, "moderation_blocked")


def test_silence_ends_after_the_providers_patience(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.provider("up", base_url=upstream.url, timeout_s=1)
    upstream.script(PATH, Hang())
    assert client(PATH, asking()).error == (504, "upstream_error", "upstream_timeout")


@pytest.mark.parametrize(("limit", "status"), [("0.11", 429), ("0.13", 200)])
def test_a_budget_holds_for_every_picture(
    gate: Gate, upstream: Upstream, client: Client, limit: str, status: int
) -> None:
    gate.limit("user", "person-1", limit)
    upstream.script(PATH, Answer(pictures({"url": "https://images.example/1.png"})))
    assert client(PATH, asking(n=3)).status == status
    if status == 200:  # what did not come is not charged
        assert gate.counted("user", "person-1") == (40_000_000, 0)


def test_a_hold_covers_size_quality_and_number(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.limit("user", "person-1", "100")
    upstream.always(PATH, one())
    upstream.always(EDITS, one())
    holds = []
    for fields in (
        {"quality": "low", "size": "1024x1024"}, {"quality": "medium", "size": "1024x1024"}, {"size": "1024x1024"}, {},
        {"n": 2}, {"n": 2, "size": "2048x2048"}, {"n": 2, "size": "2048x2048", "partial_images": 3},
    ):  # fmt: skip
        assert client(PATH, asking("gpt-image", **fields)).status == 200
        holds.append(gate.events()[-1].hold_nano)
    assert holds == sorted(set(holds))
    assert holds[0] > 2 * 272 * 40_000 and holds[-1] > 4 * 16_640 * 40_000
    assert form(client, quality="low", size="1024x1024").status == 200
    assert gate.events()[-1].hold_nano > holds[0] + 10_000 * 10_000  # a picture that is read


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x" * 32_001}, "prompt"), ({"prompt": 7}, "prompt"), ({"n": 0}, "n"), ({"n": 11}, "n"),
        ({"size": "large"}, "size"), ({"size": "0x10"}, "size"), ({"size": "1024x1024\n"}, "size"),
        ({"quality": "best"}, "quality"), ({"style": "dull"}, "style"), ({"background": "red"}, "background"),
        ({"output_format": "gif"}, "output_format"), ({"output_compression": 101}, "output_compression"),
        ({"partial_images": 4}, "partial_images"), ({"response_format": "png"}, "response_format"),
        ({"moderation": "none"}, "moderation"), ({"stream": "yes"}, "stream"), ({"model": "small"}, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(gate: Gate, client: Client, fields: dict[str, Any], param: str) -> None:
    answer = client(PATH, asking(**fields))
    assert answer.error[:2] == (400, "invalid_request_error")
    assert answer.param == param


def test_a_prompt_is_needed(gate: Gate, client: Client) -> None:
    body = asking()
    del body["prompt"]
    answer = client(PATH, body)
    assert (answer.status, answer.param) == (400, "prompt")


def test_a_request_without_a_model_means_the_one_that_openai_names(
    gate: Gate, upstream: Upstream, client: Client
) -> None:
    body = asking()
    del body["model"]
    assert client(PATH, body).error == (404, "invalid_request_error", "model_not_found")
    upstream.script(PATH, Answer({"created": 1, "data": [{"b64_json": "aGVsbG8="}]}))
    gate.model("any", "up", aliases=("dall-e-2",), capabilities=("images",))
    assert Client(gate, gate.key())(PATH, body).status == 200
    assert upstream.last.json["model"] == "any-up"


@pytest.mark.parametrize(
    ("files", "fields", "param"),
    [
        ([], {}, "image"), ([("image", b"")], {}, "image"), ([("mask", PNG)], {}, "image"),
        ([("image", PNG), ("mask", PNG), ("mask", PNG)], {}, "mask"), ([("image[]", PNG)] * 17, {}, "image"),
        ([("image", PNG), ("photo", PNG)], {}, "photo"), ([("image", PNG)], {"n": "11"}, "n"),
        ([("image", PNG)], {"n": "two"}, "n"), ([("image", PNG)], {"input_fidelity": "some"}, "input_fidelity"),
        ([("image", PNG)], {"model": "small"}, "model"), ([("image", PNG)], {"stream": "perhaps"}, "stream"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_form_is_told(
    gate: Gate, client: Client, files: Any, fields: dict[str, str], param: str
) -> None:
    answer = form(client, files=files, **fields)
    assert (answer.status, answer.param) == (400, param)


def test_steering_stays_here_and_what_is_unknown_passes(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, one(model="dall-e-up"))
    answer = client(PATH, asking(provider="up", fallback_providers=["up"], steps=30, user="ada"))
    assert answer.json["model"] == "dall-e"
    assert upstream.requests[-1].json == {
        "model": "dall-e-up", "prompt": "A small red boat", "steps": 30, "user": "ada"
    }  # fmt: skip
