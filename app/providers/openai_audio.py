"""Speech to text at OpenAI-shaped upstreams: answers in JSON, as text or subtitles, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from app.providers import usage
from app.providers.base import PROMPT_KEPT, Exchange, UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.http_errors import error_of
from app.providers.lenient_json import read_json
from app.providers.sse import EventReader
from app.providers.tokens import sample

UNREADABLE = "The provider's answer can't be read."
IN_JSON = (None, "json", "verbose_json", "diarized_json")
HEARD_PER_S = 10  # tokens of a second of sound, where nobody tells them


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
        kind = (answer.header("content-type") or "").partition(";")[0].strip().lower()
        self._is_stream = kind == "text/event-stream"
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
        is_done = False
        said = b""
        for name, data in EventReader(lambda: self._answer.read()):
            if data.strip() == b"[DONE]":
                break
            told = read_json(data)
            kind = told.get("type") if isinstance(told, dict) else None
            if name == b"error" or kind == "error" or isinstance(told, dict) and told.get("error"):
                raise error_of(502, data, self._secret, otherwise=UNREADABLE)
            if not isinstance(told, dict) or not isinstance(kind, str):
                said = said or data[:65_536]
                continue
            if kind == "transcript.text.delta" and isinstance(told.get("delta"), str):
                self._hear(told["delta"])
            if kind == "transcript.text.done":
                is_done = True
                self._tell(told)
            yield b"data: " + data.replace(b"\n", b" ") + b"\n\n"
            if is_done:
                self._answer.finish()
                break
        if not is_done:
            raise error_of(502, said, self._secret, otherwise="The provider's stream ended before it was complete.")

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
