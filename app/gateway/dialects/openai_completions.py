"""`POST /v1/completions`: prompts that are gone on with, as before there were chats."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from app.directory import Model
from app.gateway.dialects.openai import STEERING, JsonRequest, OpenAIDialect, added, texts_of, tokens_of
from app.gateway.dialects.openai_chat import Bias, Penalty, StreamOptions
from app.gateway.errors import bad_request
from app.metering.pricing import TokenBound

USUAL_LIMIT = 16  # tokens of an answer where the request names no limit, as OpenAI has it


class CompletionsRequest(JsonRequest):
    """`POST /v1/completions`."""

    prompt: Any = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None

    required: ClassVar[tuple[str, ...]] = ("model", "prompt")

    @property
    def output_limit(self) -> int:
        return USUAL_LIMIT if self.max_tokens is None else self.max_tokens

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """How many the answer has."""
        return len(self.prompt) * (self.n or 1)

    def check(self) -> None:
        self.prompt = texts_of("" if self.prompt is None else self.prompt, "prompt", may_be_empty=True)
        if self.best_of and self.best_of < (self.n or 1):
            raise bad_request("'best_of' must not be below 'n'.", "best_of")

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        prompts = len(self.prompt)
        tokens = tokens_of(self.prompt, size, members["prompt"]) + added(model)
        return TokenBound(
            input=tokens,
            output=self.output_limit,
            answers=prompts * max(self.n or 1, self.best_of or 1),
            predicted=-(-tokens // prompts) if self.echo else 0,
            priced_apart=priced_apart,
            prompts=prompts,
        )


class OpenAICompletions(OpenAIDialect):
    """OpenAI's completions."""

    name: ClassVar[str] = "openai_completions"
    streams_events: ClassVar[bool] = True
    request: ClassVar[type[JsonRequest]] = CompletionsRequest
    own: ClassVar[tuple[str, ...]] = (*STEERING, "max_tokens")


DIALECT = OpenAICompletions()
