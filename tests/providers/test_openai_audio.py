"""Speech: a sound is charged by its length and a text by its characters, whatever the upstream says or leaves unsaid."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.audio_length import Length
from app.gateway.dialects.openai_speech import TextToSpeechRequest
from app.gateway.dialects.openai_transcriptions import TranscriptionRequest
from app.providers.base import Exchange, Possible, UpstreamError, UpstreamRequest, all_of
from app.providers.openai_audio import SOUNDS, SPOKEN_PER_BYTE, SpeechToTextExchange, TextToSpeechExchange
from tests.providers.canned import Canned

# Properties have no deadline: the first example reads the vocabulary.
KNOWN, UNKNOWN = Length(True, 2500, 2500), Length(False, 10_000, 1_000)
EVENTS = "text/event-stream"


def hearing(body: Any, kind: str = "application/json", sound: Length = KNOWN, **fields: Any) -> SpeechToTextExchange:
    parsed: Any = msgspec.convert({"model": "m", **fields}, TranscriptionRequest)
    parsed.sound = sound
    request = UpstreamRequest(
        capability="transcription", dialect="openai_transcriptions", model="m", members={}, parsed=parsed,
        stream=bool(parsed.stream), possible=Possible(1000, 1000, 1000),
    )  # fmt: skip
    return SpeechToTextExchange(Canned(bytes_of(body), kind).answer, request, "openai_transcriptions", "sk-secret", 1.0)


def speaking(body: Any, kind: str = "audio/mpeg", text: str = "one two three", **fields: Any) -> TextToSpeechExchange:
    parsed: Any = msgspec.convert({"model": "m", "input": text, "voice": "v", **fields}, TextToSpeechRequest)
    request = UpstreamRequest(
        capability="speech", dialect="openai_speech", model="m", members={}, parsed=parsed, stream=True,
        possible=Possible(1000, 1000, 1000),
    )  # fmt: skip
    return TextToSpeechExchange(Canned(bytes_of(body), kind).answer, request, "openai_speech", "sk-secret", 1.0)


def bytes_of(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def events(*said: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in said)


def whole(exchange: Exchange) -> bytes:
    exchange.receive()
    return exchange.body()


# --- a sound becomes text ---


@pytest.mark.parametrize(
    ("body", "kind", "format"),
    [
        (b'{ "text": "one two" }', "application/json", "json"),
        (b'{"text":"","segments":[]}', "application/json", "verbose_json"),
        (b"one two", "text/plain", "text"), (b"WEBVTT\n\n", "text/vtt", "vtt"), (b'{"text":"{"}', "text/plain", "srt"),
    ],
)  # fmt: skip
def test_text_is_passed_on_as_it_came(body: bytes, kind: str, format: str) -> None:
    made = hearing(body, kind, response_format=format)
    assert whole(made) == body
    assert made.media_type == ("application/json" if "json" in format else "text/plain; charset=utf-8")


@settings(deadline=None)
@given(
    st.none() | st.floats(0.001, 10**6) | st.just(-5) | st.just("x"), st.sampled_from(["json", "verbose_json", "text"])
)
def test_a_length_that_was_measured_is_believed_before_any_other(seconds: Any, format: str) -> None:
    body = (
        b"hi"
        if format == "text"
        else {"text": "hi", "duration": seconds, "usage": {"type": "duration", "seconds": seconds}}
    )
    made = hearing(body, response_format=format)
    whole(made)
    assert made.usage.more["audio_ms"] == 2500


@settings(deadline=None)
@given(st.integers(1, 20_000))
def test_a_length_that_could_not_be_measured_is_the_upstreams_if_it_can_be(ms: int) -> None:
    made = hearing({"text": "hi", "usage": {"type": "duration", "seconds": ms / 1000}}, sound=UNKNOWN)
    whole(made)
    is_possible = ms <= UNKNOWN.longest_ms
    told = made.usage.more["audio_ms"]
    assert ms <= told <= ms + 1 if is_possible else told == UNKNOWN.usual_ms
    assert made.usage.certain == (("audio_ms",) if is_possible else ())


def test_tokens_that_are_told_are_those() -> None:
    made = hearing(
        {"text": "one two", "usage": {"type": "tokens", "input_tokens": 40, "output_tokens": 3, "total_tokens": 43}}
    )
    whole(made)
    used = made.usage
    assert (used.prompt_tokens, used.completion_tokens, used.estimated) == (40, 3, False)


def test_the_sound_was_heard_though_nothing_was_answered() -> None:
    assert hearing(b"").usage.more == {"audio_ms": 2500}


@pytest.mark.parametrize("body", [b"", b"null", b"[]", {"text": 5}, {"error": {"message": "Bad key sk-secret."}}])
def test_what_is_no_text_is_a_failure_and_shows_no_secret(body: Any) -> None:
    with pytest.raises(UpstreamError) as failed:
        whole(hearing(body))
    assert "sk-secret" not in failed.value.message
    with pytest.raises(UpstreamError):
        whole(hearing({"detail": "No."}, "text/plain", response_format="text"))


def test_a_stream_of_text_is_passed_on_and_ends_with_its_last_event() -> None:
    body = events(
        {"type": "transcript.text.delta", "delta": "one two"}, {"type": "of.tomorrow"},
        {"type": "transcript.text.done", "text": "one two", "usage": {"type": "tokens", "input_tokens": 40, "output_tokens": 3}},
    )  # fmt: skip
    made = hearing(body + b"data: [DONE]\n\n", EVENTS, stream=True)
    assert b"".join(all_of(made.events())) == body
    assert made.media_type is None
    assert (made.conclude().prompt_tokens, made.conclude().completion_tokens) == (40, 3)


def test_a_stream_of_text_that_is_cut_is_a_failure_and_what_was_heard_counts() -> None:
    made = hearing(events({"type": "transcript.text.delta", "delta": "one two"}), EVENTS, stream=True)
    with pytest.raises(UpstreamError):
        list(all_of(made.events()))
    assert made.conclude().completion_tokens == 2 and made.conclude().estimated


def test_a_whole_answer_comes_though_a_stream_was_asked_for() -> None:
    made = hearing(b'{"text":"one"}', stream=True)
    assert list(all_of(made.events())) == [b'{"text":"one"}'] and made.media_type == "application/json"


# --- a text becomes a sound ---

PIECES = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5).filter(
    lambda pieces: pieces[0].strip()[:1] not in (b"{", b"<")
)


@settings(deadline=None)
@given(PIECES)
def test_a_sound_is_passed_on_as_it_came(pieces: list[bytes]) -> None:
    parsed: Any = msgspec.convert({"model": "m", "input": "a", "voice": "v"}, TextToSpeechRequest)
    request = UpstreamRequest(
        capability="speech", dialect="openai_speech", model="m", members={}, parsed=parsed, stream=True
    )
    answer = Canned(kind="audio/mpeg", pieces=pieces).answer
    assert list(all_of(TextToSpeechExchange(answer, request, "openai_speech", None, 1.0).events())) == pieces


@pytest.mark.parametrize("format", [None, *SOUNDS])
def test_a_sound_of_which_nothing_is_told_is_what_was_asked_for(format: str | None) -> None:
    for kind in ("", "application/octet-stream"):
        made = speaking(b"\xffsound", kind, response_format=format)
        assert made.body() == b"\xffsound" and made.media_type == SOUNDS[format or "mp3"]
    assert speaking(b"x", "Audio/X-Wav; rate=5", response_format=format).media_type == "audio/x-wav"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "audio/mpeg"), (b'{"error":{"message":"Bad key sk-secret."}}', "audio/mpeg"), (b"<html>", "audio/wav"),
        (b"No.", "text/plain"), (b"\xff", "video/mp4"), (b"\xff", "audio/mp3\r\nX: y"),
    ],
)  # fmt: skip
def test_what_is_no_sound_is_a_failure_and_shows_no_secret(body: bytes, kind: str) -> None:
    with pytest.raises(UpstreamError) as failed:
        speaking(body, kind).body()
    assert "sk-secret" not in failed.value.message


def test_a_sound_without_a_head_may_begin_as_anything() -> None:
    assert speaking(b"{<", "audio/pcm", response_format="pcm").body() == b"{<"


@settings(deadline=None)
@given(st.text(max_size=50), st.none() | st.floats(0.25, 4))
def test_characters_are_exact_and_tokens_a_guess_where_nobody_tells_them(text: str, speed: float | None) -> None:
    made = speaking(b"\xff", text=text, speed=speed)
    made.body()
    used = made.conclude()
    assert used.more["characters"] == len(text) and used.certain == ("characters",)
    guess = SPOKEN_PER_BYTE * len(text.encode()) / (speed or 1)
    assert guess <= used.completion_tokens < guess + 1
    assert used.more["audio_output_tokens"] == used.completion_tokens and used.estimated


def test_events_with_a_sound_tell_their_tokens_at_the_end() -> None:
    body = events(
        {"type": "speech.audio.delta", "audio": "QUJD"},
        {"type": "speech.audio.done", "usage": {"input_tokens": 4, "output_tokens": 30, "total_tokens": 34}},
    )
    made = speaking(body, EVENTS, stream_format="sse")
    assert b"".join(all_of(made.events())) == body and made.media_type is None
    used = made.conclude()
    assert (used.prompt_tokens, used.completion_tokens, used.estimated) == (4, 30, False)
    assert used.more == {"audio_output_tokens": 30, "characters": 13}


def test_events_that_nobody_asked_for_are_no_sound() -> None:
    with pytest.raises(UpstreamError):
        speaking(events({"type": "speech.audio.done"}), EVENTS).body()
