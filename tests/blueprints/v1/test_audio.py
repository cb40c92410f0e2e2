"""Speech to text, by the official SDK and on real sockets: every format is passed on and metered by the sound's length."""

from __future__ import annotations

import io
import json
from typing import Any

import openai
import pytest

from app.directory import Price
from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.sounds import wav
from tests.services.upstream import Answer, Stream, Upstream, failure

A_MINUTE = Price(id="price-minute", rates={"per_audio_minute": 6_000_000})  # 0.006
A_TOKEN = Price(id="price-token", rates={"input_per_mtok": 2_000_000, "output_per_mtok": 8_000_000})
TOKENS = {"type": "tokens", "input_tokens": 25, "output_tokens": 4, "total_tokens": 29,
          "input_token_details": {"audio_tokens": 25, "text_tokens": 0}}  # fmt: skip
PATH = "/v1/audio/transcriptions"
SPEECH = ("transcription", "translation")


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("whisper", "up", price=A_MINUTE, capabilities=SPEECH, max_output_tokens=None)
    gate.model("scribe", "up", price=A_TOKEN, capabilities=SPEECH)
    return gate


def file(content: bytes | None = None) -> tuple[str, io.BytesIO]:
    return "speech.wav", io.BytesIO(wav(2.5) if content is None else content)


def form_sent(upstream: Upstream) -> bytes:
    return upstream.requests[-1].body


def test_a_sound_becomes_text_and_is_charged_by_its_length(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(PATH, Answer({"text": "Hello there.", "usage": {"type": "duration", "seconds": 3}}))
    heard = sdk.audio.transcriptions.create(model="whisper", file=file(), language="en", prompt="A greeting")
    assert heard.text == "Hello there."
    sent = upstream.requests[-1]
    assert sent.path == "/v1/audio/transcriptions"
    assert b'name="model"\r\n\r\nwhisper-up\r\n' in sent.body
    assert b'name="language"\r\n\r\nen\r\n' in sent.body
    assert wav(2.5) in sent.body
    (event,) = gate.events()
    assert (event.audio_ms, event.cost_nano, event.estimated) == (2500, 250_000, False)
    assert (event.endpoint, event.api_type, event.stream) == ("/v1/audio/transcriptions", "transcription", False)


@pytest.mark.parametrize(
    ("format", "body", "kind"),
    [
        ("text", "Hello there.\n", "text/plain; charset=utf-8"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\nHello there.\n", "text/plain; charset=utf-8"),
        ("vtt", "WEBVTT\n\n00:00.000 --> 00:02.500\nHello there.\n", "text/plain; charset=utf-8"),
        ("verbose_json", {"task": "transcribe", "duration": 2.5, "text": "Hello there.", "segments": []}, "application/json"),
        ("diarized_json", {"task": "transcribe", "duration": 2.5, "text": "Hello.", "segments": []}, "application/json"),
    ],
)  # fmt: skip
def test_every_format_is_passed_on_and_charged_alike(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI, format: Any, body: Any, kind: str
) -> None:
    upstream.script(PATH, Answer(body))
    raw = sdk.audio.transcriptions.with_raw_response.create(model="whisper", file=file(), response_format=format)
    assert raw.headers["content-type"] == kind
    assert raw.text == (body if isinstance(body, str) else json.dumps(body))
    (event,) = gate.events()
    assert (event.audio_ms, event.cost_nano) == (2500, 250_000)


def test_a_model_priced_by_tokens_is_charged_what_its_upstream_tells(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI
) -> None:
    upstream.script(PATH, Answer({"text": "Hello there.", "usage": TOKENS}))
    sdk.audio.transcriptions.create(model="scribe", file=file())
    (event,) = gate.events()
    assert (event.prompt_tokens, event.audio_input_tokens, event.completion_tokens) == (25, 25, 4)
    assert (event.cost_nano, event.estimated) == (25 * 2 + 4 * 8, False)


def test_tokens_are_counted_where_nobody_tells_them(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(PATH, Answer({"text": "Hello there."}))
    sdk.audio.transcriptions.create(model="scribe", file=file())
    (event,) = gate.events()
    assert event.estimated
    assert (event.prompt_tokens, event.completion_tokens) == (30, 3)


def test_a_transcript_is_streamed(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    deltas = [{"type": "transcript.text.delta", "delta": text} for text in ("Hello ", "there.")]
    done = {"type": "transcript.text.done", "text": "Hello there.", "usage": TOKENS}
    upstream.script(PATH, Stream([*deltas, done], done=False))
    events = list(sdk.audio.transcriptions.create(model="scribe", file=file(), stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.stream, event.outcome) == (25, 4, True, "ok")


def test_a_stream_that_is_cut_tells_so_and_costs_what_came(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Stream([{"type": "transcript.text.delta", "delta": "Hello "}], cut_after=1))
    answer = post(client, model="scribe", stream="true")
    assert b"upstream_cut" in answer.body
    (event,) = gate.events()
    assert (event.outcome, event.estimated, event.completion_tokens) == ("error", True, 1)


def test_a_whole_answer_to_a_wish_for_a_stream_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Answer({"text": "Hello there."}))
    answer = post(client, model="whisper", stream="true")
    assert (answer.headers["content-type"], answer.json) == ("application/json", {"text": "Hello there."})
    assert gate.events()[0].audio_ms == 2500


def test_a_sound_whose_length_can_not_be_read_is_passed_on_and_charged_by_what_the_upstream_tells(
    gate: Gate, upstream: Upstream, client: Client
) -> None:
    for told, (ms, estimated) in (
        ({"usage": {"type": "duration", "seconds": 1.5}}, (1500, False)), ({"duration": 2}, (2000, False)),
        ({}, (1000, True)), ({"duration": 10**9}, (1000, True)), ({"duration": "nan"}, (1000, True)),
    ):  # fmt: skip
        upstream.script(PATH, Answer({"text": "Hello."} | told))
        assert post(client, b"\1" * 8000, model="whisper", response_format="verbose_json").status == 200
        event = gate.events(1)[-1]
        assert (event.audio_ms, event.estimated) == (ms, estimated), told


@pytest.mark.parametrize("limit", ["0.0002", "0.01"])
def test_a_budget_holds_for_the_whole_length(
    gate: Gate, upstream: Upstream, client: Client, key: str, limit: str
) -> None:
    gate.limit("user", "person-1", limit)
    upstream.script(PATH, Answer({"text": "Hello."}))
    answer = post(client, model="whisper")
    assert answer.status == (429 if limit == "0.0002" else 200)
    assert gate.counted("user", "person-1") == ((0, 0) if limit == "0.0002" else (250_000, 0))


def test_a_translation_goes_its_own_way(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script("/v1/audio/translations", Answer({"text": "Hello there."}))
    answer = post(client, path="/v1/audio/translations", model="whisper")
    assert answer.json == {"text": "Hello there."}
    assert upstream.requests[-1].path == "/v1/audio/translations"
    assert gate.events()[0].api_type == "translation"


def test_the_file_is_sent_again_to_the_next_deployment(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    gate.provider("second", base_url=upstream.url)
    gate.model("both", "up", "second", price=A_MINUTE, capabilities=SPEECH)
    upstream.script(PATH, failure(503), Answer({"text": "Hello there."}))
    with openai.OpenAI(api_key=gate.key(), base_url=f"{gate.url}/v1", max_retries=0) as client:
        assert client.audio.transcriptions.create(model="both", file=file(wav(60, 16_000))).text == "Hello there."
    first, second = upstream.requests[-2:]
    boundaries = [request.headers["content-type"].partition("boundary=")[2].encode() for request in (first, second)]
    assert wav(60, 16_000) in first.body
    assert first.body.replace(boundaries[0], b"") == second.body.replace(boundaries[1], b"")


@pytest.mark.parametrize(
    ("fields", "content", "param"),
    [
        ({}, None, "model"), ({"model": "whisper", "temperature": "2"}, None, "temperature"),
        ({"model": "whisper", "temperature": "warm"}, None, "temperature"),
        ({"model": "whisper", "response_format": "mp3"}, None, "response_format"),
        ({"model": "whisper", "stream": "perhaps"}, None, "stream"),
        ({"model": "whisper", "timestamp_granularities[]": "hour"}, None, "timestamp_granularities[0]"),
        ({"model": "whisper"}, b"", "file"), ({"model": "whisper", "model[]": "x"}, None, "model"),
        ({"model": "whisper", "": "x"}, None, None), ({"model": "small"}, None, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_form_is_told(
    gate: Gate, client: Client, fields: dict[str, str], content: bytes | None, param: str | None
) -> None:
    answer = post(client, content, **fields)
    assert (answer.status, answer.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{}", b"--b", b"--b--\r\n", b'{"model":"whisper"}'])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b", "multipart/form-data", ""])
def test_what_is_no_form_is_told_in_json(gate: Gate, client: Client, body: bytes, kind: str) -> None:
    answer = client("/v1/audio/transcriptions", body, "POST", **{"Content-Type": kind})
    assert answer.error[:2] == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "said", [{}, {"error": {"message": "too long"}}, {"text": None}, [], "", b"\xff", {"detail": "no such model"}]
)
def test_an_answer_without_a_text_is_a_failure(gate: Gate, upstream: Upstream, client: Client, said: Any) -> None:
    upstream.script(PATH, Answer(said))
    answer = post(client, model="whisper")
    assert answer.status == 502
    assert gate.events()[0].cost_nano == 0


def test_steering_stays_here(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, Answer({"text": "Hello."}))
    assert post(client, model="whisper", provider="up", unknown="kept").status == 200
    assert b'name="provider"' not in upstream.requests[-1].body
    assert b'name="unknown"\r\n\r\nkept' in upstream.requests[-1].body


def post(client: Client, content: bytes | None = None, *, path: str = PATH, **fields: str) -> Reply:
    """A form with a sound, sent without any library's opinion of it."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + (wav(2.5) if content is None else content) + b"\r\n--b--\r\n"
    return client(path, body, "POST", **{"Content-Type": "multipart/form-data; boundary=b"})
