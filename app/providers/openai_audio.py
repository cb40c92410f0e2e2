"""Speech at OpenAI-shaped upstreams: to text, in JSON, as text or subtitles, whole or streamed; and from text, as a sound."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from app.providers import usage
from app.providers.base import PROMPT_KEPT, Exchange, UpstreamError, UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.http_errors import error_of
from app.providers.lenient_json import read_json
from app.providers.openai_events import EVENTS, NULL, UNREADABLE, media_type_of, typed_events
from app.providers.tokens import sample

IN_JSON = (None, "json", "verbose_json", "diarized_json")
HEARD_PER_S = 10  # tokens of a second of sound, where nobody tells them
SPOKEN_PER_BYTE = 1.4  # tokens of the sound of a text, where nobody tells them: about 20 a second

# The sounds that can be asked for, and the media type of each where an upstream tells none.
SOUNDS = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
    "pcm": "audio/pcm",
}  # fmt: skip
_UNTOLD = ("", "application/octet-stream", "binary/octet-stream", "application/ogg")
_SOUND = re.compile(r"audio/[a-z0-9.+-]{1,50}")
MAX_ERROR_BYTES = 1 << 20


class SpeechToTextExchange(Exchange):
    """One sound sent to an upstream whose head was good.

    The length is what was measured when the sound came. Where that could not be read, it is what the upstream tells, if so
    many bytes can last so long, or else a guess, and the usage is an estimate.
    """

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        self._answer = answer
        self._secret = secret
        self._grace_s = grace_s
        self.speaks = speaks
        self._sound = sound = request.parsed.sound
        # Of these the length is all that is told, or charged.
        self._by_length = request.parsed.response_format not in ("json", "diarized_json", None)
        self._in_json = request.parsed.response_format in IN_JSON
        heard = HEARD_PER_S * -(-sound.usual_ms // 1000)
        request.remembered = sample([request.parsed.prompt or ""], PROMPT_KEPT, heard)
        self._is_stream = media_type_of(answer) == EVENTS
        if not self._is_stream:  # some models answer whole although a stream was asked for
            self.media_type = "application/json" if self._in_json else "text/plain; charset=utf-8"
        self._tally = usage.Tally(request)
        self._told_ms: int | None = None
        self._body = b""

    def receive(self) -> None:
        self._body = self._answer.read_object(self._grace_s) if self._in_json else self._answer.read_all()

    def body(self) -> bytes:
        body = self._body
        said = read_json(body) if self._in_json or body.lstrip().startswith(b"{") else None
        if isinstance(said, dict) and isinstance(said.get("text"), str):
            self._hear(said["text"])
            self._tell(said)
        elif self._in_json or isinstance(said, dict):
            raise error_of(502, body, self._secret, otherwise=UNREADABLE)
        else:
            self._hear(body.decode("utf-8", "replace"))
        self.conclude()
        return body

    def events(self) -> Iterator[bytes]:
        if not self._is_stream:
            self.receive()
            yield self.body()
            return
        for event in typed_events(self._answer, self._secret):
            if event.kind == "transcript.text.delta" and isinstance(
                delta := read_json(event.members.get("delta", NULL)), str
            ):
                self._hear(delta)
            is_last = event.kind == "transcript.text.done"
            if is_last:
                self._tell({"usage": read_json(event.members.get("usage", NULL))})
            yield event.sent
            if is_last:
                self._answer.finish()
                return

    def _hear(self, text: str) -> None:
        if text:
            self._tally.hear({"content": msgspec.Raw(_json_of(text))})

    def _tell(self, said: dict[str, Any]) -> None:
        told = said.get("usage")
        if isinstance(told, dict):
            self._tally.tell(msgspec.json.encode(told))
            self._by_length = self._by_length or told.get("type") == "duration"
        seconds = told.get("seconds") if isinstance(told, dict) and "seconds" in told else said.get("duration")
        if isinstance(seconds, int | float) and 0 < seconds * 1000 <= self._sound.longest_ms:
            self._told_ms = -int(-seconds * 1000 // 1)

    @property
    def usage(self) -> Usage:
        """The sound was heard, whatever came of it."""
        return self._with_length(self._tally.usage)

    def conclude(self) -> Usage:
        return self._with_length(self._tally.conclude())

    def _with_length(self, used: Usage) -> Usage:
        return charged_by_length(used, self._sound, told_ms=self._told_ms, is_all=self._by_length)

    def close(self) -> None:
        self._answer.close()


class TextToSpeechExchange(Exchange):
    """One text to be spoken, sent to an upstream whose head was good; its sound goes on as it comes.

    The characters are known. The tokens are those that the upstream tells at the end of a stream of events, or else estimates.
    """

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        self._answer = answer
        self._secret = secret
        self._grace_s = grace_s
        self.speaks = speaks
        asked = request.parsed
        self._characters = len(asked.input)
        self._spoken = math.ceil(SPOKEN_PER_BYTE * len(asked.input.encode("utf-8", "replace")) / (asked.speed or 1))
        self._format = asked.response_format or "mp3"
        self._wants_events = asked.stream_format == "sse"
        self._kind = kind = media_type_of(answer)
        if kind != EVENTS or not self._wants_events:
            self.media_type = kind if _SOUND.fullmatch(kind) else SOUNDS[self._format]
        self._tally = usage.Tally(request)

    def body(self) -> bytes:
        return b"".join(self.events())

    def events(self) -> Iterator[bytes]:
        if self.media_type is None:
            return self._events()
        return self._sound()

    def _sound(self) -> Iterator[bytes]:
        if self._kind not in _UNTOLD and not _SOUND.fullmatch(self._kind):
            raise self._none(b"")
        first = self._answer.read()
        # Of the sounds, only one without any head may begin as JSON or HTML does.
        if not first or self._format != "pcm" and first.lstrip()[:1] in (b"{", b"<"):
            raise self._none(first)
        piece = first
        while piece:
            yield piece
            piece = self._answer.read()

    def _none(self, first: bytes) -> UpstreamError:
        """The failure of an attempt that gave no sound, with the reason that the answer tells."""
        try:
            said = first + self._answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self._grace_s)
        except UpstreamError:
            said = first
        return error_of(502, said, self._secret, otherwise=UNREADABLE)

    def _events(self) -> Iterator[bytes]:
        for event in typed_events(self._answer, self._secret):
            is_last = event.kind == "speech.audio.done"
            if is_last:
                self._tally.tell(event.members.get("usage", NULL))
            yield event.sent
            if is_last:
                self._answer.finish()
                return

    @property
    def usage(self) -> Usage:
        """The text was read, whatever came of it."""
        return self._with_sound(self._tally.usage)

    def conclude(self) -> Usage:
        return self._with_sound(self._tally.conclude())

    def _with_sound(self, used: Usage) -> Usage:
        if not used.completion_tokens:
            used.completion_tokens, used.estimated = self._spoken, True
        used.more["audio_output_tokens"] = used.completion_tokens
        used.more["characters"] = self._characters
        used.certain = ("characters",)
        return used

    def close(self) -> None:
        self._answer.close()


def charged_by_length(used: Usage, sound: Any, *, told_ms: int | None, is_all: bool) -> Usage:
    """The usage with the sound's length; `is_all`: nothing else is told, or charged."""
    if sound.is_known:
        used.more["audio_ms"] = sound.longest_ms
        used.estimated = used.estimated and not is_all
    else:
        used.more["audio_ms"] = told_ms or sound.usual_ms
        used.estimated = told_ms is None or used.estimated and not is_all
    return used


def _json_of(text: str) -> bytes:
    return msgspec.json.encode(text.encode("utf-8", "replace").decode())
