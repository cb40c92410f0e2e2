"""What clients of OpenAI's paths hear is of OpenAI's published schema, as its own package types it: every whole answer and
every chunk, whatever the upstream speaks. It is shown with the recordings of every kind of provider."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImageEditStreamEvent, ImageGenStreamEvent, ImagesResponse
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionStreamEvent,
    TranscriptionVerbose,
    Translation,
    TranslationVerbose,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from app.directory import Deployment
from app.gateway.dialects import dialect
from app.providers.base import all_of
from tests.providers.contract import (
    THEIRS,
    Recording,
    Stage,
    all_kinds,
    home_of,
    own_recordings_of,
    playing,
    recordings_of,
    request_of,
)

WHOLE: dict[str, Any] = {
    "chat": ChatCompletion, "completions": Completion, "embeddings": CreateEmbeddingResponse, "images": ImagesResponse,
    "transcription": Transcription | TranscriptionVerbose | TranscriptionDiarized,
    "translation": Translation | TranslationVerbose,
}  # fmt: skip
STREAMED: dict[str, Any] = {
    "chat": ChatCompletionChunk, "completions": Completion, "images": ImageGenStreamEvent | ImageEditStreamEvent,
    "transcription": TranscriptionStreamEvent,
}  # fmt: skip

# What OpenAI itself says otherwise than its schema: in a stream a choice of completions has no reason until it has finished.
UNFINISHED = re.compile(rb'"finish_reason": ?null')
# What an upstream says that is of no schema, and that passes as it is: what Azure's filters found comes in a chunk of its own.
AS_IT_CAME = re.compile(rb'"prompt_filter_results"')


def is_judged(recording: Recording) -> bool:
    return (
        "error" not in recording.gives
        and recording.endpoint
        != "responses"  # they pass as they came; those that are made are judged where they are made
        and recording.capability in (STREAMED if recording.streams else WHOLE)
        and recording.asks.get("response_format") not in ("text", "srt", "vtt")
    )


CASES = [
    (kind, name)
    for kind in all_kinds()
    for name, recording in recordings_of(kind).items()
    if is_judged(recording) and (kind == home_of(kind) or name in own_recordings_of(kind))
]
# What the schema asks for and may be null, which the package's types let be away: made here, it is there.
NULLABLE = {
    ("chat", False): ("finish_reason", "logprobs", "message.content", "message.refusal"),
    ("chat", True): ("finish_reason",),
    ("completions", False): ("finish_reason", "logprobs"),
    ("completions", True): ("finish_reason", "logprobs"),
}
MADE_HERE = [(kind, name) for kind, name in CASES if home_of(kind) != "openai"]


@cache
def published(capability: str, *, streams: bool) -> TypeAdapter[Any]:
    return TypeAdapter((STREAMED if streams else WHOLE)[capability])


def in_openai(recording: Recording) -> Recording:
    """A recording that was asked in Anthropic's words, asked in OpenAI's: the upstream is the same and says the same."""
    if recording.endpoint != "messages":
        return recording
    asks: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}]}
    if recording.streams:
        asks |= {"stream": True, "stream_options": {"include_usage": True}}
    return recording._replace(endpoint=None, asks=asks)


def heard(stage: Stage, recording: Recording) -> list[bytes]:
    """The JSON of an answer, or of each event of a stream, as the client of the recording's path hears it."""
    stage.player.answer([stage.said_by(recording)], hangs_up=recording.hangs_up)
    request = request_of(in_openai(recording))
    spoken = dialect(request.dialect)
    deployment = Deployment(id="d", provider_id="p", upstream_model=THEIRS, settings=recording.deployment)
    exchange = stage.adapter.open(request, deployment)
    is_same = exchange.speaks == spoken.name
    try:
        if recording.streams:
            pieces = all_of(exchange.events() if is_same else spoken.events(request, exchange))
            lines = [line for piece in pieces for line in piece.splitlines()]
            return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
        exchange.receive()
        return [exchange.body() if is_same else spoken.answer(request, exchange)]
    finally:
        exchange.close()


@pytest.mark.parametrize(("kind", "name"), CASES, ids=["-".join(case) for case in CASES])
def test_every_answer_and_every_chunk_is_of_the_published_schema(kind: str, name: str) -> None:
    recording = recordings_of(kind)[name]
    schema = published(recording.capability, streams=recording.streams)
    with playing(kind, recording.settings) as stage:
        for said in heard(stage, recording):
            if recording.streams and recording.capability == "completions":
                said = UNFINISHED.sub(b'"finish_reason":"stop"', said)
            if not AS_IT_CAME.search(said):
                schema.validate_json(said, strict=True)


@pytest.mark.parametrize(("kind", "name"), MADE_HERE, ids=["-".join(case) for case in MADE_HERE])
def test_what_is_made_here_has_every_member_that_the_schema_asks_for(kind: str, name: str) -> None:
    recording = recordings_of(kind)[name]
    with playing(kind, recording.settings) as stage:
        for said in heard(stage, recording):
            for choice in json.loads(said).get("choices", ()):
                for path in NULLABLE.get((recording.capability, recording.streams), ()):
                    *above, member = path.split(".")
                    assert member in (choice[above[0]] if above else choice), path
