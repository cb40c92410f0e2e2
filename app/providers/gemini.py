"""Gemini, by its own interface: contents and parts, `generateContent` and its stream, vectors, lists and counts.

No client speaks it, so each chat is translated (`app.providers.gemini_conversation`). Each chunk of a stream is a whole answer
with what is new in it, and tells the usage so far. There is no last event: a stream is whole once it says why it ended.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from app.directory import Capability, Deployment
from app.providers import gemini_usage, model_list
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, CheckResult, Exchange, Pieces, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import (
    Event,
    Finish,
    FinishReason,
    Reasoning,
    Reply,
    Silence,
    Text,
    ToolCall,
    ToolCallDelta,
)
from app.providers.gemini_conversation import FAILURES, REASONS, TAKES, UNNAMED, UNSPECIFIED, body_of
from app.providers.http import Answer, Pool
from app.providers.http_errors import error_of, seconds_in
from app.providers.lenient_json import WholeText, all_whole, read_json, string_in, whole
from app.providers.model_list import ListedModel
from app.providers.openai import GRACE_S, MAX_ERROR_BYTES, UNREADABLE, ApiKey, ApiKeyEnv
from app.providers.openai_embeddings import VectorsExchange, texts_of
from app.providers.openai_exchange import TalliedExchange
from app.providers.settings import ADDRESS, Settings
from app.providers.signatures import Signatures
from app.providers.sse import COMMENT, EventReader
from app.providers.trial import try_out
from app.runtime.ids import new_id

SPEAKS = "gemini"
MOST_TEXTS = 100  # in one request for vectors
MOST_PAGES = 5  # of a list of models
TASKS = {"query": "RETRIEVAL_QUERY", "passage": "RETRIEVAL_DOCUMENT"}
# Which of its calls a model takes, and what it can do by that.
METHODS: dict[str, Capability] = {
    "generateContent": "chat", "embedContent": "embeddings", "batchEmbedContents": "embeddings",
}  # fmt: skip
_VERSIONED = re.compile(r"/v\d\w*(?:/|$)")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OF_SIGNATURES = re.compile(r"thought[\s_]?signature", re.IGNORECASE)


class GeminiSettings(Settings):
    """What Gemini can be told."""

    base_url: Annotated[
        str,
        Meta(
            title="Base URL",
            description="The address without a version. One with a version in its path is used as it is.",
            max_length=500,
            extra=ADDRESS,
        ),
    ] = "https://generativelanguage.googleapis.com"
    api_key: ApiKey = None
    api_key_env: ApiKeyEnv = None
    api_version: Annotated[
        str, Meta(title="API version", description="Such as v1beta.", pattern=r"^v[0-9a-z]{1,20}\Z")
    ] = "v1beta"

    @property
    def secret(self) -> str | None:
        return os.environ.get(self.api_key_env) if self.api_key_env else self.api_key


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = msgspec.Raw()


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: msgspec.Raw = msgspec.Raw()
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    """What the gateway needs of an answer or a chunk."""

    candidates: list[_Candidate] | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw()
    prompt_feedback: _Feedback | None = None
    response_id: str | None = None
    error: msgspec.Raw = msgspec.Raw()


_chunk = msgspec.json.Decoder(_Chunk)
_NO_PARTS: list[_Part] = []


class GeminiExchange(TalliedExchange):
    """One answer of Gemini's whose head was good. It is whole when it says why it ended, and it is none without that."""

    def __init__(
        self, answer: Answer, request: UpstreamRequest, secret: str | None, grace_s: float, signatures: Signatures
    ) -> None:
        super().__init__(answer, request, SPEAKS, secret, grace_s)
        self._signatures = signatures
        self._until: float | None = None  # until when more is waited for, once the stream may end
        self._reason: FinishReason | None = None
        self._told = msgspec.Raw()  # the usage as it was told last, until it is asked for
        self._is_told = False  # for good
        self._id = ""  # of the answer
        self._calls = 0
        self._clean = WholeText().add
        self.finish_reason = None

    @property
    def usage(self) -> Usage:
        self._tell()
        return super().usage

    def conclude(self) -> Usage:
        self._tell()
        return super().conclude()

    def complete(self, used: Usage) -> Usage:
        """What is told on the way is not all of it: more may be thought than has been said."""
        return used if self._is_told else msgspec.structs.replace(used, estimated=True)

    def body(self) -> bytes:
        raise NotImplementedError("no client speaks Gemini's dialect")

    def events(self) -> Pieces:
        raise NotImplementedError("no client speaks Gemini's dialect")

    def reply(self) -> Reply:
        chunk = _read(self._body)
        if chunk is None:
            raise self._none(self._body)
        self._tally.hear_whole(self._body)
        said = self._take(chunk, self._body)
        self._tell()
        if self._reason is None:
            raise self._none(self._body)
        parts = [
            ToolCall(event.id or "", event.name or "", event.arguments, event.signature)
            if isinstance(event, ToolCallDelta)
            else event
            for part in said
            if (event := self._event(part)) is not None
        ]
        if self._tally.usage.estimated:
            texts = [part.arguments if isinstance(part, ToolCall) else part.text for part in parts]
            self._tally.hear_whole(json.dumps({"choices": [{"message": {"content": texts}}]}).encode())
        self.conclude()
        return Reply(parts=tuple(parts), finish=self._finish())

    def neutral_events(self) -> Iterator[Event]:
        began = False
        for parts in self._heard():
            if parts is None:
                if began:
                    yield Silence()
                continue
            for part in parts:
                event = self._event(part)
                if event is not None:
                    began = True
                    yield event
        yield Finish(self._finish())

    def _heard(self) -> Iterator[list[_Part] | None]:
        """The parts of each chunk, counted, and None for a silence. Raises `UpstreamError` for a failure, and for a stream that
        does not say why it ended."""
        reader = EventReader(self._next_piece, comments=True)
        for name, data in reader:
            if name == COMMENT:
                yield None
                continue
            chunk = _read(data)
            if chunk is None:
                continue
            if len(chunk.error) and self._until is not None:
                break
            yield self._take(chunk, data)
        if self._reason is None:
            raise error_of(
                502, reader.stray, self._secret, otherwise="The provider's stream ended before it was complete."
            )
        self._answer.finish()

    def _next_piece(self) -> bytes | None:
        return self._answer.read_stream(self._keep_alive_s, self._until)

    def _take(self, chunk: _Chunk, data: bytes) -> list[_Part]:
        """Count an answer or a chunk; its parts. Raises `UpstreamError` for one that tells a failure."""
        if len(chunk.error) and bytes(chunk.error) != b"null":
            raise self._none(data)
        if not self._id and chunk.response_id:
            self._id = chunk.response_id
        tells = len(chunk.usage_metadata) > 0
        if not tells:
            self._tell()  # it is of what came before
        candidate = _first(chunk)
        parts = _NO_PARTS if candidate is None or candidate.content is None else candidate.content.parts or _NO_PARTS
        for part in parts:
            if len(part.text):
                self._tally.hear({"content": part.text})
            elif part.function_call is not None:
                self._tally.hear({"function_call": msgspec.Raw(msgspec.json.encode(part.function_call))})
        if tells:
            self._told = chunk.usage_metadata
        if candidate is not None and candidate.finish_reason is not None:
            self._end(candidate, candidate.finish_reason)
        elif chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._is_told = True
            self._reason = "content_filter"
        if self._is_told:
            self._until = time.monotonic() + self._grace_s
        return parts

    def _end(self, candidate: _Candidate, reason: str) -> None:
        if reason == UNSPECIFIED:
            return
        self._is_told = True
        if reason in FAILURES:
            raise self._no_call(candidate)
        self._reason = REASONS.get(reason, "stop")

    def _no_call(self, candidate: _Candidate) -> UpstreamError:
        """The failure of a model that wanted to call a tool, say, and said what is no call."""
        said = candidate.finish_message or f"The model's answer can't be used ({candidate.finish_reason})."
        return error_of(502, msgspec.json.encode({"message": said}), self._secret)

    def _tell(self) -> None:
        if len(self._told):
            raw, self._told = bytes(self._told), msgspec.Raw()
            told, tier = gemini_usage.read(raw)
            self._tally.take(told)
            self._tally.tell_tier(tier)

    def _event(self, part: _Part) -> Text | Reasoning | ToolCallDelta | None:
        """What a part says. Some, such as code that the model ran by itself, have no words here."""
        if part.function_call is not None:
            return self._called(part.function_call, part.thought_signature or None)
        text = self._clean(part.thought, string_in(bytes(part.text))) if len(part.text) else ""
        if part.thought:
            return Reasoning(text) if text else None
        signature = part.thought_signature or None
        return Text(text, signature) if text or signature else None

    def _called(self, call: _Call, signature: str | None) -> ToolCallDelta:
        """A call, which always comes whole. One without a name of its own gets one that tells so when it comes back."""
        id = call.id or ""
        if not _ID.fullmatch(id) or id.startswith(UNNAMED):
            if not _ID.fullmatch(self._id):
                self._id = new_id()
            id = f"{UNNAMED}{self._id[:48]}_{self._calls}"
        if signature is not None:
            self._signatures.keep(id, signature)
        index, self._calls = self._calls, self._calls + 1
        return ToolCallDelta(index, id, whole(call.name or ""), _arguments(bytes(call.args)), signature)

    def _finish(self) -> FinishReason:
        assert self._reason is not None
        reason: FinishReason = "tool_calls" if self._calls and self._reason == "stop" else self._reason
        self.finish_reason = reason
        return reason


def _first(chunk: _Chunk) -> _Candidate | None:
    for candidate in chunk.candidates or ():
        if not candidate.index:
            return candidate
    return None


def _arguments(raw: bytes) -> str:
    """The arguments of a call as the text of an object, without blanks between its members."""
    if not raw.startswith(b"{"):
        return "{}"
    if b"\\u" in raw:
        return msgspec.json.encode(all_whole(read_json(raw))).decode()
    return msgspec.json.format(raw, indent=-1).decode("utf-8", "replace")


def _read(data: bytes) -> _Chunk | None:
    """An answer or a chunk, None for what is no object."""
    try:
        return _chunk.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = read_json(data)
    if isinstance(value, list):  # as whole answers may come
        value = value[0] if value else None
    return _loosely(value) if isinstance(value, dict) else None


def _loosely(value: dict[str, Any]) -> _Chunk:
    """What is needed of an object that is not quite what it should be."""
    candidates = value.get("candidates")
    feedback, id = value.get("promptFeedback"), value.get("responseId")
    return _Chunk(
        candidates=[_loose_candidate(one) for one in candidates if isinstance(one, dict)]
        if isinstance(candidates, list)
        else None,
        usage_metadata=_raw(value, "usageMetadata"),
        prompt_feedback=_Feedback(_str(feedback, "blockReason")) if isinstance(feedback, dict) else None,
        response_id=id if isinstance(id, str) else None,
        error=_raw(value, "error"),
    )


def _loose_candidate(one: dict[str, Any]) -> _Candidate:
    content, index = one.get("content"), one.get("index")
    parts = content.get("parts") if isinstance(content, dict) else None
    found = [_loose_part(part) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else None
    return _Candidate(
        content=_Content(found),
        finish_reason=_str(one, "finishReason"),
        finish_message=_str(one, "finishMessage"),
        index=index if type(index) is int else None,
    )


def _loose_part(part: dict[str, Any]) -> _Part:
    call = part.get("functionCall")
    return _Part(
        text=_raw(part, "text") if isinstance(part.get("text"), str) else msgspec.Raw(),
        thought=part.get("thought") is True,
        thought_signature=_str(part, "thoughtSignature"),
        function_call=_Call(_str(call, "id"), _str(call, "name"), _raw(call, "args"))
        if isinstance(call, dict)
        else None,
    )


def _str(value: dict[str, Any], name: str) -> str | None:
    text = value.get(name)
    return whole(text) if isinstance(text, str) else None


def _raw(value: dict[str, Any], name: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value[name]).encode()) if name in value else msgspec.Raw()


class _Vector(msgspec.Struct):
    values: list[float]


class _Vectors(msgspec.Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: msgspec.Raw = msgspec.Raw()


_vectors = msgspec.json.Decoder(_Vectors)


class Gemini(Adapter):
    """Gemini's developer interface, and every upstream that speaks as it does."""

    title: ClassVar[str] = "Gemini"
    Settings: ClassVar[type[Settings]] = GeminiSettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat", "embeddings"))
    settings: GeminiSettings

    def __init__(self, settings: GeminiSettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._pool = Pool(self.dial())
        self._signatures = Signatures()
        has_version = _VERSIONED.search(self._pool.origin.path)
        self._root = "" if has_version else f"/{settings.api_version}"
        self._grace_s = min(GRACE_S, settings.timeout_s)

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        model = deployment.upstream_model
        if request.capability == "embeddings":
            return self._embed(request, model)
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        conversation = request.conversation(TAKES)
        body = body_of(conversation, model, request.max_output, self._signatures.of)
        try:
            answer = self._ask(model, method, body, request)
        except UpstreamError as error:
            if error.status != 400 or not _OF_SIGNATURES.search(error.message):
                raise
            # They are another account's or another model's. It thinks anew without them.
            body = body_of(conversation, model, request.max_output, self._signatures.of, signs=False)
            answer = self._ask(model, method, body, request)
        return GeminiExchange(answer, request, self.settings.secret, self._grace_s, self._signatures)

    def _embed(self, request: UpstreamRequest, model: str) -> Exchange:
        exchange = VectorsExchange(request)
        spent: list[int | None] = []
        found: list[list[float]] = []
        texts = texts_of(request)
        more: dict[str, Any] = {"model": _path_of(model)}
        if request.parsed.type is not None:
            more["taskType"] = TASKS[request.parsed.type]
        if request.parsed.dimensions is not None:
            more["outputDimensionality"] = request.parsed.dimensions
        for start in range(0, len(texts), MOST_TEXTS):
            some = texts[start : start + MOST_TEXTS]
            asked = [{"content": {"parts": [{"text": text}]}, **more} for text in some]
            vectors, count = self._vectors(model, asked)
            if len(vectors) != len(some):
                raise UpstreamError("The provider did not give one vector for each text.")
            found += vectors
            spent.append(count)
        exchange.take(found)
        if None not in spent:
            exchange.told(sum(filter(None, spent)))
        return exchange

    def _vectors(self, model: str, asked: list[dict[str, Any]]) -> tuple[list[list[float]], int | None]:
        """The vectors, and the tokens that were read if that was told. Raises `UpstreamError`."""
        said = self._whole(self._ask(model, "batchEmbedContents", {"requests": asked}))
        try:
            answer = _vectors.decode(said)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = _Vectors([])
        vectors = [one.values for one in answer.embeddings]
        if not vectors or not all(vectors):
            raise error_of(502, said, self.settings.secret, otherwise=UNREADABLE)
        told, _ = gemini_usage.read(bytes(answer.usage_metadata))
        return vectors, told.prompt

    def count_tokens(self, request: UpstreamRequest, deployment: Deployment) -> int | None:
        model = deployment.upstream_model
        body = body_of(request.conversation(TAKES), model, None, self._signatures.of)
        asked = {"generateContentRequest": {"model": _path_of(model)} | body}
        value = read_json(self._whole(self._ask(model, "countTokens", asked)))
        count = value.get("totalTokens") if isinstance(value, dict) else None
        return count if type(count) is int and count >= 0 else None

    def _whole(self, answer: Answer) -> bytes:
        try:
            return answer.read_object(self._grace_s)
        finally:
            answer.close()

    def _ask(self, model: str, method: str, body: dict[str, Any], request: UpstreamRequest | None = None) -> Answer:
        """An answer with a good status. Raises `UpstreamError`."""
        accept = "text/event-stream" if request is not None and request.stream else "application/json"
        headers = {"Content-Type": "application/json", "Accept": accept} | self._credentials
        path = f"{self._root}/{quote(_path_of(model), safe='/')}:{method}"
        return self._good(self._pool.request("POST", path, headers, [msgspec.json.encode(body)]))

    @property
    def _credentials(self) -> dict[str, str]:
        return {"x-goog-api-key": self.settings.secret} if self.settings.secret else {}

    def _good(self, answer: Answer) -> Answer:
        """The answer, if its status is good. Raises `UpstreamError`."""
        if 200 <= answer.status < 300:
            return answer
        try:
            body = answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self.settings.timeout_s)
        except UpstreamError:  # the status has told what matters
            body = b""
        finally:
            answer.close()
        raise _refusal(answer.status, body, self.settings.secret, seconds_in(answer.header("retry-after")))

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        ask = None if model is None else lambda: self._try(model, prompt or "Hello", parameters)
        return try_out(self.list_models, ask)

    def _try(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        """A small real call: a chat or, where that is refused as it is for a model that does not chat, a vector."""
        said = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
        try:
            text = self._whole(
                self._ask(model, "generateContent", {"generationConfig": {"maxOutputTokens": 16}, **parameters, **said})
            )
        except UpstreamError as error:
            if error.status not in (400, 404):
                raise
            try:
                self._vectors(model, [{"model": _path_of(model), "content": {"parts": [{"text": prompt}]}}])
            except UpstreamError:
                raise error from None
            return
        chunk = _read(text)
        candidate = _first(chunk) if chunk is not None else None
        if candidate is None or candidate.finish_reason in (None, *FAILURES):
            otherwise = "The provider's answer can't be read; is the base URL right?"
            raise error_of(502, text, self.settings.secret, otherwise=otherwise)

    def list_models(self) -> tuple[ListedModel, ...] | None:
        """Those that chat or give vectors."""
        found: list[ListedModel] = []
        page = ""
        for _ in range(MOST_PAGES):
            path = f"{self._root}/models?pageSize=1000{page}"
            try:
                answer = self._good(self._pool.request("GET", path, {"Accept": "application/json"} | self._credentials))
            except UpstreamError as error:
                if error.status in (404, 405):
                    return None
                raise
            try:
                said = answer.read_all(model_list.MAX_BYTES, time.monotonic() + self.settings.timeout_s)
            finally:
                answer.close()
            value = read_json(said)
            found += _listed(value)
            token = value.get("nextPageToken")
            if not isinstance(token, str) or not token:
                break
            page = f"&pageToken={quote(token[:500], safe='')}"
        return tuple(found)

    def close(self) -> None:
        self._pool.close()


def _path_of(model: str) -> str:
    """A model's place at the provider; a tuned one is told with its own."""
    return model if "/" in model else f"models/{model}"


def _listed(value: Any) -> tuple[ListedModel, ...]:
    """The models of a page that chat or give vectors, with what the list tells of them. Raises `UpstreamError`."""
    entries = value.get("models", []) if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise UpstreamError(model_list.UNREADABLE)
    told: dict[str, tuple[Capability | None, tuple[str, ...]]] = {}
    usable: list[dict[str, Any]] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        id, methods = name.removeprefix("models/"), entry.get("supportedGenerationMethods")
        can = [METHODS[one] for one in methods if one in METHODS] if isinstance(methods, list) else [None]
        if can:
            told[id] = can[0], ("reasoning",) if entry.get("thinking") is True else ()
            usable.append(entry | {"id": id})
    return tuple(
        msgspec.structs.replace(one, capability=told[one.id][0], features=told[one.id][1])
        for one in model_list.of(usable)
        if one.id in told
    )


def _refusal(status: int, body: bytes, secret: str | None, retry_after_s: float | None) -> UpstreamError:
    """A bad key is told as a bad request here, and how long to wait stands in the error."""
    said = read_json(body)
    said = said[0] if isinstance(said, list) and said else said
    inner = said.get("error") if isinstance(said, dict) else None
    details = inner.get("details") if isinstance(inner, dict) else None
    is_of_account = isinstance(inner, dict) and inner.get("status") == "FAILED_PRECONDITION"
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if detail.get("reason") == "API_KEY_INVALID":
            status = 401
        delay = detail.get("retryDelay")
        if retry_after_s is None and isinstance(delay, str) and delay.endswith("s"):
            retry_after_s = seconds_in(delay[:-1])
    error = error_of(status, body, secret, retry_after_s=retry_after_s)
    if is_of_account:
        error.refused = False
    return error


ADAPTER = Gemini
