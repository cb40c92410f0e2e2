"""Pictures from OpenAI-shaped upstreams: as addresses or within the answer, whole or streamed with pictures in between."""

from __future__ import annotations

import msgspec

from app.providers import usage
from app.providers.base import PROMPT_KEPT, Pieces, UpstreamRequest, Usage
from app.providers.http import Answer
from app.providers.lenient_json import members_of
from app.providers.model_name import ModelName
from app.providers.openai_events import EVENTS, NULL, SILENCE, media_type_of, typed_events
from app.providers.openai_exchange import TalliedExchange
from app.providers.tokens import sample

READ_USUAL = 1_024  # tokens of a picture that is read, where nobody tells them
LEAST = 3  # bytes of a text in JSON that is not empty


class _Picture(msgspec.Struct, gc=False):
    url: msgspec.Raw = msgspec.Raw(NULL)
    b64_json: msgspec.Raw = msgspec.Raw(NULL)

    @property
    def is_one(self) -> bool:
        values = memoryview(self.url), memoryview(self.b64_json)
        return any(len(value) >= LEAST and value[0] == usage.QUOTE for value in values)


_pictures = msgspec.json.Decoder(list[_Picture])


class ImagesExchange(TalliedExchange):
    """One request for pictures to an upstream whose head was good.

    The pictures that came are known. Their tokens are those that the upstream tells, or else estimates.
    """

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        super().__init__(answer, request, speaks, secret, grace_s)
        asked = request.parsed
        self._asked_for = asked.pictures
        self._tokens_of_one = asked.tokens_of_one
        if request.form is not None:
            request.remembered = sample([asked.prompt], PROMPT_KEPT, READ_USUAL * len(request.form.files))
        self._name = ModelName(request.model)
        self._is_stream = request.stream and media_type_of(answer) == EVENTS
        if request.stream and not self._is_stream:  # some models answer whole although a stream was asked for
            self.media_type = "application/json"
        self._came = 0  # pictures
        self._begun = 0  # ... that came in part at least
        self._is_told = False  # how many tokens they are
        self._is_apart = False  # ... and how many of these are pictures

    def body(self) -> bytes:
        body = self._body
        try:
            members = members_of(body)
            pictures = _pictures.decode(members.get("data", b"[]"))
        except (ValueError, msgspec.DecodeError, UnicodeDecodeError):
            raise self._none(body) from None
        self._came = self._begun = sum(picture.is_one for picture in pictures)
        if not self._came:
            raise self._none(body)
        self._tell(members)
        self.conclude()
        return self._name.put_once(body) if "model" in members else body

    def events(self) -> Pieces:
        if not self._is_stream:
            self.receive()
            return self.body()
        for event in typed_events(self._answer, self._secret, self._keep_alive_s):
            if event.kind != SILENCE:
                self._begun = max(self._begun, self._came + 1)
            if event.kind.endswith(".completed"):
                self._came += 1
                self._tell(event.members)
            if self._came >= self._asked_for:
                self._answer.finish()
                return event.sent
            yield event.sent
        return None

    def _tell(self, members: dict[str, bytes]) -> None:
        told = self._tally.tell(members.get("usage", NULL))
        if told.completion and self._tally.usage.completion_tokens == told.completion:
            self._is_told, self._is_apart = True, "image_output_tokens" in told.more

    def complete(self, used: Usage) -> Usage:
        if not self._is_told:
            used.completion_tokens, used.estimated = self._tokens_of_one * self._begun, True
        if not self._is_apart:
            used.more["image_output_tokens"] = used.completion_tokens
        used.more["images"] = self._came
        used.certain = ("images",)
        return used
