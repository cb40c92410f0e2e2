"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: forms with a sound, answered with its text."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Model
from app.gateway.audio_length import length_of
from app.gateway.dialects.base import Asked
from app.gateway.dialects.openai import JsonRequest, OpenAIDialect, added
from app.gateway.dialects.openai_forms import asked_of
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound
from app.runtime.forms import Form, Upload

# The most that a second of speech can be, tokens heard and tokens written, and what text a model may make of silence.
HEARD_PER_S = 20
WRITTEN_PER_S = 10
WRITTEN_OF_NOTHING = 500

Probability = Annotated[float, Meta(ge=0, le=1)]
Words = Annotated[str, Meta(max_length=65_536)]


class SpeechRequest(JsonRequest):
    """What both have in common."""

    prompt: Words | None = None
    temperature: Probability | None = None
    sound: Any = msgspec.field(name="", default=None)  # a `Length`; no field of a form is named so

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        longest_ms = self.sound.longest_ms
        seconds = -(-longest_ms // 1000)
        heard = HEARD_PER_S * seconds
        written = model.max_output_tokens or WRITTEN_PER_S * seconds + WRITTEN_OF_NOTHING
        return TokenBound(
            input=size + added(model) + heard,
            output=written,
            unseen=heard,
            priced_apart=priced_apart,
            more={"audio_ms": longest_ms},
        )


class TranslationRequest(SpeechRequest):
    """`POST /v1/audio/translations`."""

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] | None = None


class TranscriptionRequest(SpeechRequest):
    """`POST /v1/audio/transcriptions`."""

    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] | None = None
    stream: bool | None = None
    language: Annotated[str, Meta(max_length=64)] | None = None
    timestamp_granularities: list[Literal["word", "segment"]] | None = None
    include: list[Literal["logprobs"]] | None = None


class OpenAISpeechToText(OpenAIDialect):
    """A form with a sound. Fields that the gateway does not know pass through."""

    end: ClassVar[bytes] = b""

    def __init__(self, name: str, request: type[SpeechRequest]) -> None:
        self.name = name  # type: ignore[misc]
        self.request = request  # type: ignore[misc]

    def read(self, body: Form) -> Asked:
        sound = sound_of(body)
        asked = asked_of(body, self.request)
        asked.checked.sound = length_of(sound)  # type: ignore[attr-defined]
        return asked


def sound_of(form: Form) -> Upload:
    """The one file of a form. Raises `ApiError` 400."""
    if not form.files:
        raise bad_request("Missing required parameter: 'file'.", "file")
    if len(form.files) > 1 or form.files[0].name != "file":
        raise bad_request("The form must have one file, by the name of 'file'.", form.files[-1].name[:100])
    if not len(form.files[0]):
        raise bad_request("'file' is empty.", "file")
    return form.files[0]


DIALECT = OpenAISpeechToText("openai_transcriptions", TranscriptionRequest)
