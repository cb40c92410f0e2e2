"""Speech at OpenAI-shaped upstreams: to text, in JSON, as text or subtitles, whole or streamed; and from text, as a sound."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import msgspec

from app.providers.base import PROMPT_KEPT, Pieces, UpstreamError, UpstreamRequest, Usage, all_of
from app.providers.http import Answer
from app.providers.lenient_json import read_json
from app.providers.openai_events import EVENTS, NULL, media_type_of, typed_events
from app.providers.openai_exchange import TalliedExchange
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


class SpeechToTextExchange(TalliedExchange):
    """One sound sent to an upstream whose head was good.

    The length is what was measured when the sound came. Where that could not be read, it is what the upstream tells, if so
    many bytes can last so long, or else a guess, and the usage is an estimate.
    """

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        super().__init__(answer, request, speaks, secret, grace_s)
        self._sound = sound = request.parsed.sound
        self._in_json = request.parsed.response_format in IN_JSON
        heard = HEARD_PER_S * -(-sound.usual_ms // 1000)
        request.remembered = sample([request.parsed.prompt or ""], PROMPT_KEPT, heard)
        self._is_stream = media_type_of(answer) == EVENTS
        if not self._is_stream:  # some models answer whole although a stream was asked for
            self.media_type = "application/json" if self._in_json else "text/plain; charset=utf-8"
        self._told_ms: int | None = None

    def receive(self) -> None:
        if self._in_json:
            super().receive()
        else:
            self._body = self._answer.read_all()

    def body(self) -> bytes:
        body = self._body
        said = read_json(body) if self._in_json or body.lstrip().startswith(b"{") else None
        if isinstance(said, dict) and isinstance(said.get("text"), str):
            self._hear(said["text"])
            self._tell(said)
        elif self._in_json or isinstance(said, dict):
            raise self._none(body)
        else:
            self._hear(body.decode("utf-8", "replace"))
        self.conclude()
        return body

    def events(self) -> Pieces:
        if not self._is_stream:
            self.receive()
            return self.body()
        for event in typed_events(self._answer, self._secret, self._keep_alive_s):
            if event.kind == "transcript.text.delta" and isinstance(
                delta := read_json(event.members.get("delta", NULL)), str
            ):
                self._hear(delta)
            if event.kind == "transcript.text.done":
                self._tell({"usage": read_json(event.members.get("usage", NULL))})
                self._answer.finish()
                return event.sent
            yield event.sent
        return None

    def _hear(self, text: str) -> None:
        if text:
            self._tally.hear({"content": msgspec.Raw(_json_of(text))})

    def _tell(self, said: dict[str, Any]) -> None:
        told = said.get("usage")
        if isinstance(told, dict):
            self._tally.tell(msgspec.json.encode(told))
        seconds = told.get("seconds") if isinstance(told, dict) and "seconds" in told else said.get("duration")
        if isinstance(seconds, int | float) and 0 < seconds * 1000 <= self._sound.longest_ms:
            self._told_ms = -int(-seconds * 1000 // 1)

    def complete(self, used: Usage) -> Usage:
        return with_length(used, self._sound, self._told_ms)


class TextToSpeechExchange(TalliedExchange):
    """One text to be spoken, sent to an upstream whose head was good; its sound goes on as it comes.

    The characters are known. The tokens are those that the upstream tells at the end of a stream of events, or else estimates.
    """

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        super().__init__(answer, request, speaks, secret, grace_s)
        asked = request.parsed
        self._characters = len(asked.input)
        self._spoken = math.ceil(SPOKEN_PER_BYTE * len(asked.input.encode("utf-8", "replace")) / (asked.speed or 1))
        self._format = asked.response_format or "mp3"
        self._wants_events = asked.stream_format == "sse"
        self._kind = kind = media_type_of(answer)
        if kind != EVENTS or not self._wants_events:
            self.media_type = kind if _SOUND.fullmatch(kind) else SOUNDS[self._format]

    def body(self) -> bytes:
        return b"".join(all_of(self.events()))

    def events(self) -> Pieces:
        if self.media_type is None:
            return self._events()
        return self._sound()

    def _sound(self) -> Pieces:
        if self._kind not in _UNTOLD and not _SOUND.fullmatch(self._kind):
            raise self._no_sound(b"")
        first = self._answer.read()
        # Of the sounds, only one without any head may begin as JSON or HTML does.
        if not first or self._format != "pcm" and first.lstrip()[:1] in (b"{", b"<"):
            raise self._no_sound(first)
        piece = first
        while piece:
            yield piece
            piece = self._answer.read()
        return None

    def _no_sound(self, first: bytes) -> UpstreamError:
        """The failure of an attempt that gave no sound, with the reason that the answer tells."""
        try:
            said = first + self._answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self._grace_s)
        except UpstreamError:
            said = first
        return self._none(said)

    def _events(self) -> Pieces:
        for event in typed_events(self._answer, self._secret, self._keep_alive_s):
            if event.kind == "speech.audio.done":
                self._tally.tell(event.members.get("usage", NULL))
                self._answer.finish()
                return event.sent
            yield event.sent
        return None

    def complete(self, used: Usage) -> Usage:
        if not used.completion_tokens:
            used.completion_tokens, used.estimated = self._spoken, True
        used.more["audio_output_tokens"] = used.completion_tokens
        used.more["characters"] = self._characters
        used.certain = ("characters",)
        return used


def with_length(used: Usage, sound: Any, told_ms: int | None = None) -> Usage:
    """The usage with the sound's length: measured, or else told, or else a guess."""
    length_ms = sound.longest_ms if sound.is_known else told_ms
    if length_ms is None:
        used.estimated = True
    else:
        used.certain = ("audio_ms",)
    used.more["audio_ms"] = length_ms or sound.usual_ms
    return used


def _json_of(text: str) -> bytes:
    return msgspec.json.encode(text.encode("utf-8", "replace").decode())
