"""Text to speech, by the official SDK and on real sockets: a sound goes on as it comes, charged by its characters."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import openai
import pytest

from app.directory import Price
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import (
    GARBAGE,
    WRONG_TYPE,
    Answer,
    Behaviour,
    Exchange,
    Hang,
    Stream,
    Upstream,
    Wire,
    failure,
)

PATH = "/v1/audio/speech"
A_CHARACTER = Price(id="price-character", rates={"per_million_characters": 15_000_000_000})  # 15
A_TOKEN = Price(id="price-token", rates={"input_per_mtok": 600_000_000, "audio_output_per_mtok": 12_000_000_000})
SOUND = b"ID3\x04" + bytes(range(256)) * 400
HELLO = "Hello there, ünïcode."  # 21 characters


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("tts", "up", price=A_CHARACTER, capabilities=("speech",), max_output_tokens=None)
    gate.model("speaker", "up", price=A_TOKEN, capabilities=("speech",), max_output_tokens=None)
    return gate


def sound(body: bytes = SOUND, kind: str = "audio/mpeg", **more: Any) -> Answer:
    return Answer(body, content_type=kind, **more)


def asking(model: str = "tts", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": HELLO, "voice": "alloy"} | more


class Cut(Behaviour):
    """A sound that ends in the middle of a chunked body."""

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.head(200, {"Content-Type": "audio/mpeg", "Transfer-Encoding": "chunked"})
        wire.chunk(SOUND)
        return False


class Slow(Behaviour):
    """A sound whose second half comes once its first was heard."""

    def __init__(self) -> None:
        self.first_came = False

    def play(self, exchange: Exchange, wire: Wire) -> bool:
        wire.head(200, {"Content-Type": "audio/mpeg", "Transfer-Encoding": "chunked"})
        wire.chunk(SOUND)
        while not self.first_came:
            wire.wait(0.01)
        wire.chunk(SOUND)
        wire.send(b"0\r\n\r\n")
        return True


def test_a_sound_is_passed_on_and_charged_by_its_characters(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    upstream.script(PATH, sound())
    heard = sdk.audio.speech.create(model="tts", input=HELLO, voice="alloy", instructions="Cheerful.", speed=1.5)
    assert heard.content == SOUND
    assert heard.response.headers["content-type"] == "audio/mpeg"
    sent = upstream.requests[-1]
    assert sent.json == {
        "model": "tts-up", "input": HELLO, "voice": "alloy", "instructions": "Cheerful.", "speed": 1.5
    }  # fmt: skip
    assert sent.headers["accept"] == "*/*"
    (event,) = gate.events()
    assert (event.characters, event.cost_nano, event.estimated) == (21, 315_000, False)
    assert (event.endpoint, event.api_type, event.outcome) == ("/v1/audio/speech", "speech", "ok")


@pytest.mark.parametrize(
    ("format", "told", "given"),
    [
        ("mp3", "audio/mpeg", "audio/mpeg"), ("opus", "audio/opus", "audio/opus"), ("wav", "audio/x-wav", "audio/x-wav"),
        ("flac", "application/octet-stream", "audio/flac"), ("aac", "", "audio/aac"), ("pcm", "", "audio/pcm"),
        ("opus", "application/ogg", "audio/ogg"), (None, "Audio/MPEG; x=1", "audio/mpeg"),
    ],
)  # fmt: skip
def test_the_media_type_is_the_upstreams_or_that_of_the_format(
    gate: Gate, upstream: Upstream, client: Client, format: str | None, told: str, given: str
) -> None:
    upstream.script(PATH, sound(b"{not json" if format == "pcm" else SOUND, told))
    answer = client(PATH, asking(response_format=format))
    assert (answer.status, answer.headers["content-type"]) == (200, given)


@pytest.mark.both_lanes
def test_a_sound_goes_on_as_it_comes(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    slow = Slow()
    upstream.script(PATH, slow)
    with sdk.audio.speech.with_streaming_response.create(model="tts", input=HELLO, voice="alloy") as answer:
        pieces = answer.iter_bytes(len(SOUND))
        assert next(pieces) == SOUND
        slow.first_came = True
        assert b"".join(pieces) == SOUND


def test_events_tell_the_tokens_that_are_charged(gate: Gate, upstream: Upstream, sdk: openai.OpenAI) -> None:
    deltas = [{"type": "speech.audio.delta", "audio": text} for text in ("SUQz", "AAAA")]
    done = {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}}
    upstream.script(PATH, Stream([*deltas, done], done=False))
    heard = sdk.audio.speech.create(model="speaker", input=HELLO, voice="alloy", stream_format="sse")
    assert heard.response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in heard.text.splitlines() if line]
    assert events == [*deltas, done]
    (event,) = gate.events()
    assert (event.prompt_tokens, event.completion_tokens, event.audio_output_tokens) == (14, 101, 101)
    assert (event.cost_nano, event.estimated, event.characters) == (14 * 600 + 101 * 12_000, False, 21)


def test_tokens_are_estimated_where_nobody_tells_them(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, sound())
    assert client(PATH, asking("speaker")).status == 200
    (event,) = gate.events()
    spoken = 33  # 1.4 for each of 23 bytes
    assert (event.audio_output_tokens, event.estimated) == (spoken, True)
    assert event.cost_nano == event.prompt_tokens * 600 + spoken * 12_000


@pytest.mark.both_lanes
def test_a_sound_that_is_cut_has_no_proper_end_and_is_booked(gate: Gate, upstream: Upstream, client: Client) -> None:
    for behaviour in (Cut(), sound(cut_after=5000), sound(cut_after=80_000)):
        upstream.script(PATH, behaviour)
        with pytest.raises(http.client.IncompleteRead) as told:
            client(PATH, asking())
        assert SOUND.startswith(told.value.partial)
        event = gate.events()[-1]
        assert (event.outcome, event.error_code, event.cost_nano) == ("error", "upstream_cut", 315_000)
    assert gate.counted("user", "person-1")[1] == 0
    upstream.script(PATH, sound())
    assert client(PATH, asking()).body == SOUND


def test_events_that_are_cut_end_with_an_error(gate: Gate, upstream: Upstream, client: Client) -> None:
    delta = {"type": "speech.audio.delta", "audio": "SUQz"}
    for chunks, told in (([delta], b"upstream_cut"), ([delta, {"type": "error", "error": {"message": "no more voice"}}],
                                                      b"no more voice")):  # fmt: skip
        upstream.script(PATH, Stream(chunks, done=False))
        answer = client(PATH, asking(stream_format="sse"))
        assert answer.status == 200 and told in answer.body
        event = gate.events()[-1]
        assert (event.outcome, event.cost_nano) == ("error", 315_000)


def test_a_client_that_hangs_up_pays_for_its_text(gate: Gate, upstream: Upstream, key: str) -> None:
    upstream.script(PATH, Slow())
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
    connection.request("POST", PATH, json.dumps(asking()), {"Authorization": f"Bearer {key}"})
    assert connection.getresponse().read(10) == SOUND[:10]
    began = time.monotonic()
    connection.sock.close()
    connection.close()
    (event,) = gate.events()
    assert (event.outcome, event.cost_nano) == ("cancelled", 315_000)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (GARBAGE, ""), (WRONG_TYPE, ""), (failure(500), ""), (sound(b""), ""),
        (Answer({"error": {"message": "no such voice"}}), "no such voice"), (Answer({"audio": "SUQz"}), ""),
        (sound(b'{"error": {"message": "no such voice"}}'), "no such voice"), (sound(b"<html>", ""), ""),
        (sound(b"gibberish", "text/plain"), ""), (Stream([{"type": "speech.audio.delta"}]), ""),
        (sound(b"", cut_after=0, headers={"Content-Length": "5"}), ""),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_sound_costs_nothing_and_the_next_deployment_is_asked(
    gate: Gate, upstream: Upstream, client: Client, said: Behaviour, message: str
) -> None:
    upstream.script(PATH, said)
    answer = client(PATH, asking())
    assert answer.status == 502 and message in answer.json["error"]["message"]
    assert (gate.events()[0].cost_nano, gate.events()[0].outcome) == (0, "error")
    gate.provider("second", base_url=upstream.url)
    gate.model("both", "up", "second", price=A_CHARACTER, capabilities=("speech",))
    upstream.script(PATH, said, sound())
    assert Client(gate, gate.key())(PATH, asking("both")).body == SOUND
    (_, event) = gate.events(2)
    assert (event.attempt, event.cost_nano, event.provider_id) == (2, 315_000, "provider-second")


def test_a_refusal_is_passed_on(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, failure(400, "no such voice"))
    answer = client(PATH, asking())
    assert (answer.status, answer.json["error"]["message"]) == (400, "no such voice")


def test_silence_ends_after_the_providers_patience(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.provider("up", base_url=upstream.url, timeout_s=1)
    upstream.script(PATH, Hang())
    assert client(PATH, asking()).error == (504, "upstream_error", "upstream_timeout")


@pytest.mark.parametrize(("limit", "status"), [("0.0003", 429), ("0.001", 200)])
def test_a_budget_holds_for_all_characters(
    gate: Gate, upstream: Upstream, client: Client, limit: str, status: int
) -> None:
    gate.limit("user", "person-1", limit)
    upstream.script(PATH, sound())
    assert client(PATH, asking()).status == status


def test_a_budget_holds_for_the_longest_sound_of_a_text(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.limit("user", "person-1", "1")
    upstream.script(PATH, sound())
    assert client(PATH, asking("speaker")).status == 200
    (event,) = gate.events()
    assert event.hold_nano > (4 * 23 + 500) * 12_000 > event.cost_nano


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "x" * 4097}, "input"), ({"input": 7}, "input"), ({"input": None}, "input"), ({"voice": ""}, "voice"),
        ({"voice": {}}, "voice.id"), ({"voice": {"id": 7}}, "voice.id"), ({"voice": 7}, "voice"),
        ({"speed": 0.2}, "speed"), ({"speed": 4.1}, "speed"), ({"response_format": "midi"}, "response_format"),
        ({"stream_format": "rtp"}, "stream_format"), ({"instructions": "x" * 4097}, "instructions"),
        ({"model": "small"}, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_told(gate: Gate, client: Client, fields: dict[str, Any], param: str) -> None:
    answer = client(PATH, asking(**fields))
    assert answer.error[:2] == (400, "invalid_request_error")
    assert answer.param == param


@pytest.mark.parametrize("missing", ["model", "input", "voice"])
def test_what_is_missing_is_told(gate: Gate, client: Client, missing: str) -> None:
    body = asking()
    del body[missing]
    answer = client(PATH, body)
    assert (answer.status, answer.param) == (400, missing)


def test_steering_stays_here_and_what_is_unknown_passes(gate: Gate, upstream: Upstream, client: Client) -> None:
    upstream.script(PATH, sound())
    body = asking(input="x" * 4096, voice={"id": "voice_1"}, provider="up", fallback_providers=["up"], lang="de")
    assert client(PATH, body).status == 200
    assert upstream.requests[-1].json == {
        "model": "tts-up", "input": "x" * 4096, "voice": {"id": "voice_1"}, "lang": "de"
    }  # fmt: skip
