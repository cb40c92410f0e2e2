"""`POST /v1/audio/speech`: a text, answered with its sound, or with events that carry it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.openai import JsonRequest, OpenAIDialect, added
from app.metering.pricing import TokenBound

# The most tokens that the sound of a byte of text can be, at the usual speed, and of the silence around it.
MOST_PER_BYTE = 4
MOST_OF_NOTHING = 500


class _Voice(msgspec.Struct):
    id: Annotated[str, Meta(min_length=1, max_length=256)]


class TextToSpeechRequest(JsonRequest):
    """`POST /v1/audio/speech`."""

    input: Annotated[str, Meta(max_length=4096)] = ""
    voice: Annotated[str, Meta(min_length=1, max_length=256)] | _Voice = ""
    instructions: Annotated[str, Meta(max_length=4096)] | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    stream_format: Literal["sse", "audio"] | None = None

    required: ClassVar[tuple[str, ...]] = ("model", "input", "voice")

    @property
    def stream(self) -> bool:
        """A sound goes on as it comes."""
        return True

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        slow = 1 / min(self.speed or 1, 1)
        spoken = int(MOST_PER_BYTE * len(self.input.encode("utf-8", "replace")) * slow) + MOST_OF_NOTHING
        return TokenBound(
            input=size + added(model),
            output=model.max_output_tokens or spoken,
            priced_apart=priced_apart,
            more={"characters": len(self.input)},
        )


class OpenAISpeech(OpenAIDialect):
    """OpenAI's text to speech."""

    name: ClassVar[str] = "openai_speech"
    end: ClassVar[bytes] = b""
    request: ClassVar[type[JsonRequest]] = TextToSpeechRequest


DIALECT = OpenAISpeech()
