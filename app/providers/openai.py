"""OpenAI, and every upstream that speaks its wire format.

The body goes up as it came but for the few members that must change; answers come back byte for byte but for the
model's name, which is the portal's, and the usage chunk, which only those see who asked for it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from app.directory import Capability, Deployment
from app.providers import model_list, openai_conversation, openai_responses, usage
from app.providers.addresses import AddressPolicy
from app.providers.base import (
    Adapter,
    CheckResult,
    CheckVerdict,
    Exchange,
    Pieces,
    UpstreamError,
    UpstreamRequest,
    Usage,
)
from app.providers.conversation import Event, Reply
from app.providers.http import Answer, Pool
from app.providers.http_errors import error_of, reason_in, seconds_in
from app.providers.lenient_json import read_json, without_surrogates
from app.providers.model_list import ListedModel
from app.providers.model_name import ModelName
from app.providers.openai_audio import SpeechToTextExchange, TextToSpeechExchange
from app.providers.openai_exchange import TalliedExchange
from app.providers.openai_images import ImagesExchange
from app.providers.openai_kinds import NOTHING, OpenAIKind
from app.providers.openai_rerank import RerankExchange
from app.providers.settings import ADDRESS, SECRET, Settings, SettingsError, secret_env
from app.providers.sse import COMMENT, KEEP_ALIVE, EventReader
from app.runtime.forms import MULTIPART, Form, parts_of
from app.runtime.jsonbody import object_of

ApiKey = Annotated[str | None, Meta(title="API key", description="Kept encrypted.", extra=SECRET)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
ApiKeyEnv = Annotated[
    VariableName | None,
    Meta(
        title="API key from the environment",
        description="The name of an environment variable of the gateway that holds the key, instead of the key itself.",
        extra=secret_env("api_key"),
    ),
]
BaseUrl = Annotated[str, Meta(title="Base URL", description="Includes /v1.", max_length=500, extra=ADDRESS)]
OutputLimitField = Annotated[
    Literal["max_completion_tokens", "max_tokens"],
    Meta(title="Output limit field", description="The member by which this upstream lets itself be limited."),
]
Responses = Annotated[
    bool,
    Meta(
        title="Speaks Responses",
        description="It has /responses: requests to /v1/responses go there as they come. Off: they are asked as chats.",
    ),
]


Printable = r"^[!-~](?:[ -~]*[!-~])?\Z"
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", max_length=100)]
Member = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=100)]
# Headers that a request has already, or that would make another one of it.
OWN_HEADERS = frozenset(
    ("accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type",
     "cookie", "expect", "host", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
     "user-agent")
)  # fmt: skip

# The settings that a kind may ask for, beside those that all have.
SHAPE: dict[str, Any] = {
    "auth": Annotated[
        Literal["bearer", "header", "basic", "none"],
        Meta(
            title="How the key is sent",
            description="bearer: Authorization: Bearer; header: in the header named below; basic: as the password of a "
            "user name; none: not at all.",
        ),
    ],
    "auth_header": Annotated[
        HeaderName, Meta(title="Header of the key", description="Used if the key is sent in a header.")
    ],
    "username": Annotated[
        str,
        Meta(
            title="User name",
            description="Used if the key is sent as a password.",
            pattern=r"^(?:[!-9;-~](?:[ -9;-~]*[!-9;-~])?)?\Z",  # without a colon
            max_length=200,
        ),
    ],
    "headers": Annotated[
        dict[HeaderName, Annotated[str, Meta(pattern=Printable, max_length=500)]],
        Meta(
            title="More headers",
            description='Sent with every request, in the clear: {"x-organisation": "research"}.',
            max_length=20,
        ),
    ],
    "query": Annotated[
        dict[
            Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~-]+\Z", max_length=100)],
            Annotated[str, Meta(pattern=Printable, max_length=500)],
        ],
        Meta(
            title="Query parameters",
            description='Behind every address, in the clear: {"api-version": "2024-10-21"}.',
            max_length=20,
        ),
    ],
    "path": Annotated[
        str,
        Meta(
            title="Path of a call",
            description="Below the base URL. {path} is OpenAI's path, such as /chat/completions; {model} is the model's "
            "name at the provider: /deployments/{model}{path}",
            pattern=r"^(?:/(?:[A-Za-z0-9._~-]|\{model\})+)*\{path\}\Z",
            max_length=300,
        ),
    ],
    "list_path": Annotated[
        str,
        Meta(
            title="Path of the model list",
            description="Below the base URL.",
            pattern=r"^(?:/[A-Za-z0-9._~-]+)+\Z",
            max_length=300,
        ),
    ],
    "rename": Annotated[
        dict[Member, Member],
        Meta(
            title="Renamed parameters",
            description='Members of a request that this upstream calls otherwise: {"seed": "random_seed"}.',
            max_length=50,
        ),
    ],
    "drop": Annotated[
        list[Member],
        Meta(
            title="Dropped parameters",
            description='Members of a request that this upstream refuses and that are not sent: ["user"].',
            max_length=50,
        ),
    ],
    "service": Annotated[
        Literal["auto", "router", "endpoint"],
        Meta(
            title="Service",
            description="router: embeddings and ranks are Hugging Face's own tasks, feature extraction and sentence "
            "similarity; endpoint: embeddings have OpenAI's format, and ranks are asked for beside /v1, as Text Embeddings "
            "Inference has them; auto: what the base URL tells.",
        ),
    ],
    "api_version": Annotated[
        str,
        Meta(
            title="API version",
            description="Of the interface with deployments, for a base URL that does not end in /v1. Empty for "
            "2024-10-21. Behind /v1 it is sent only if it is given.",
            pattern=r"^[A-Za-z0-9.-]*\Z",
            max_length=50,
        ),
    ],
}
# Members without which a call would be another one, or could cost more than is held for it.
NEEDED = ("model", "messages", "input", "prompt", "voice", "query", "documents", "stream")
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class OpenAISettings(Settings):
    """What an OpenAI-shaped upstream can be told."""

    base_url: BaseUrl = "https://api.openai.com/v1"
    api_key: ApiKey = None
    api_key_env: ApiKeyEnv = None
    output_limit_field: OutputLimitField = "max_completion_tokens"
    responses: Responses = True

    @property
    def secret(self) -> str | None:
        return os.environ.get(self.api_key_env) if self.api_key_env else self.api_key

    def __post_init__(self) -> None:
        for name in getattr(self, "headers", ()):
            if name.lower() in OWN_HEADERS:
                raise SettingsError("headers", f"The header {name} can't be set: requests have their own.")
        renamed: Mapping[str, str] = getattr(self, "rename", {})
        for name in (*renamed, *renamed.values()):
            if name in NEEDED or name in LIMITS and name not in renamed:
                raise SettingsError("rename", f"The member {name} must stay as it is.")
        for name in getattr(self, "drop", ()):
            if name in (*NEEDED, *LIMITS):
                raise SettingsError("drop", f"The member {name} must stay as it is.")
        if getattr(self, "auth", None) == "header" and self.auth_header.lower() in OWN_HEADERS - {"authorization"}:  # type: ignore[attr-defined]
            raise SettingsError("auth_header", "Another header must be used: requests have this one already.")


_NULL = msgspec.Raw(b"null")


class _Choice(msgspec.Struct, gc=False):
    index: msgspec.Raw = _NULL
    finish_reason: str | None = None
    delta: dict[str, msgspec.Raw] | None = None
    message: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL

    @property
    def piece(self) -> dict[str, msgspec.Raw]:
        """What a chunk adds to the answer. Some upstreams stream whole messages, or texts, instead of deltas."""
        return {"message": self.message, "text": self.text} if self.delta is None else self.delta


class _Vector(msgspec.Struct, gc=False):
    embedding: msgspec.Raw = _NULL


class _Reply(msgspec.Struct, gc=False):
    """What the gateway needs of an answer or a chunk."""

    usage: msgspec.Raw = msgspec.Raw()
    choices: list[_Choice] | None = None
    data: list[_Vector] | None = None
    error: msgspec.Raw | None = None
    service_tier: msgspec.Raw = msgspec.Raw()


_reply = msgspec.json.Decoder(_Reply)
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,')

# The dialect of each path.
SPEAKS: dict[Capability, str] = {
    "chat": "openai_chat", "completions": "openai_completions", "embeddings": "openai_embeddings",
    "transcription": "openai_transcriptions", "translation": "openai_translations", "speech": "openai_speech",
    "images": "openai_images", "rerank": "rerank",
}  # fmt: skip

# Exchanges of their own.
EXCHANGES: dict[Capability, type[TalliedExchange]] = {
    "transcription": SpeechToTextExchange, "translation": SpeechToTextExchange, "speech": TextToSpeechExchange,
    "images": ImagesExchange, "rerank": RerankExchange,
}  # fmt: skip

# Paths of pictures that come in a form, by dialect.
FORMS = {"openai_images": "/images/edits", "openai_variations": "/images/variations"}
WRITTEN = ("chat", "completions")  # answers that are text, whose length a request can limit

# How long a stream whose choices have all finished is listened to for its usage and its end.
GRACE_S = 5.0
JSON = "application/json"
BRACE, QUOTE = b'{"'
MAX_ERROR_BYTES = 1 << 20
UNREADABLE = "The provider's answer can't be read."
MAX_HELD = 16  # chunks before the first choice: what comes beyond them only keeps the connection alive


class OpenAIExchange(Exchange):
    """One request to an OpenAI-shaped upstream whose head was good.

    The answer is judged by what it says and not by how its connection ends: it is whole when `[DONE]` has come or
    when every choice has finished, and it is none when it has no choice.
    """

    def __init__(self, answer: Answer, request: UpstreamRequest, secret: str | None, timeout_s: float) -> None:
        self._answer = answer
        self._request = request
        self.speaks = SPEAKS[request.capability]
        self._secret = secret
        self._grace_s = min(GRACE_S, timeout_s)
        self._name = ModelName(request.model)
        self._choices: int = getattr(request.parsed, "choices", 1)  # asked for
        self._finished: set[bytes] = set()  # indexes
        self._until: float | None = None  # until when more is waited for, once the stream may end
        self._tally = usage.Tally(request)
        self._no_usage: bytes | None = None  # `"usage":null` as the upstream spells it
        self._body = b""  # the whole answer, where it is none in pieces
        self._first_chunk = b""
        self._usage_chunk: bytes | None = None  # the upstream's last, held back until the end
        self.finish_reason = None

    def receive(self) -> None:
        self._body = self._answer.read_object(self._grace_s)

    def body(self) -> bytes:
        body = self._body
        reply = self._read(body)
        if reply is None or not self._answers(reply):
            if reply is not None:
                self._tally.tell(bytes(reply.usage))  # its provider charges for it all the same
            raise self._none(body)
        for choice in reply.choices or ():
            if choice.finish_reason == "error":
                raise self._none(body)
        self._tally.hear_whole(body)
        told = self._tally.tell(bytes(reply.usage))
        self._tally.tell_tier(bytes(reply.service_tier))
        self.conclude()
        if not self._tally.confirms(told):
            body = usage.with_member(body, "usage", self._tally.as_json())
        if reply.choices:
            self.finish_reason = reply.choices[0].finish_reason
        try:
            return self._name.put_once(body)
        except ValueError:
            raise UpstreamError(UNREADABLE) from None

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def reply(self) -> Reply:
        return openai_conversation.reply_of(self.body())

    def neutral_events(self) -> Iterator[Event]:
        return openai_conversation.events_of(self.events())

    def _answers(self, reply: _Reply) -> bool:
        """Whether a whole answer is one."""
        if self._request.capability == "embeddings":
            return bool(reply.data) and all(memoryview(vector.embedding)[0] in b'["' for vector in reply.data or ())
        is_chat = self._request.capability == "chat"
        for choice in reply.choices or ():
            if memoryview(choice.message)[0] == BRACE if is_chat else memoryview(choice.text)[0] == QUOTE:
                return True
        return False

    def events(self) -> Pieces:
        reader = EventReader(self._next_piece, comments=True)
        put = self._name.put
        began = done = False
        held: list[bytes] = []  # chunks without a choice: not yet an answer
        said = b""  # the last object that was no chunk
        for name, data in reader:
            if not data.startswith(b"{"):  # [DONE], or something that only keeps the connection alive
                if name == COMMENT:
                    if began:
                        yield KEEP_ALIVE
                    continue
                data = data.strip()
                if data == b"[DONE]":
                    done = True
                    self._answer.finish()
                    break
                if not data.startswith(b"{"):
                    continue
            reply = self._read(data)
            if reply is None or name == b"error":
                if self._until is not None:
                    break
                raise self._none(data)
            if reply.choices is None and bytes(reply.usage) in (b"", b"null"):
                said = data
                continue
            if b"\n" in data:  # written over several lines, as JSON may be
                data = data.replace(b"\n", b" ")
            if not (passed_on := self._count(reply, data)):
                continue
            try:
                event = b"data: " + put(passed_on) + b"\n\n"
            except ValueError:
                raise UpstreamError(UNREADABLE) from None
            if began:
                yield event
            elif reply.choices:
                began = True
                yield b"".join([*held, event])
                held.clear()
            elif len(held) < MAX_HELD:
                held.append(event)
        if not began:
            raise self._none(said or reader.stray)
        if not done and self._until is None:
            raise error_of(
                502, said or reader.stray, self._secret, otherwise="The provider's stream ended before it was complete."
            )
        if self._request.include_usage:
            yield b"data: " + put(self._last_chunk()) + b"\n\n"
        return None

    def _next_piece(self) -> bytes | None:
        return self._answer.read_stream(self._request.keep_alive_s, self._until)

    def _count(self, reply: _Reply, data: bytes) -> bytes:
        """Count a chunk; what of it the client is to see, nothing of a chunk that only tells usage."""
        for choice in reply.choices or ():
            if choice.finish_reason:
                self._finish(choice, data)
            if self._tally.hear(choice.piece) and self._until is not None:
                # Some upstreams go on after they have said that they are finished.
                self._until = time.monotonic() + self._grace_s
        if not self._first_chunk:
            self._first_chunk = data
        told = bytes(reply.usage)
        if not told:
            return data
        if told == b"null":
            return data if self._request.include_usage else self._without_null(data)
        self._tally.tell(told)
        self._tally.tell_tier(bytes(reply.service_tier))
        if reply.choices:  # usage has its own chunk, the last
            spelled = b',"usage":' + told
            if data.count(spelled) == 1:  # as nearly all write it
                return data.replace(spelled, b"")
            return usage.with_member(data, "usage", None)
        self._usage_chunk = data
        return b""

    def _without_null(self, data: bytes) -> bytes:
        """`data` without the member that says that there is no usage yet; a stream spells it the same way all along."""
        spelled = self._no_usage
        if spelled is None or spelled not in data:
            found = _NO_USAGE.search(data)
            if found is None:
                return data
            self._no_usage = spelled = found[0]
        return data.replace(spelled, b"", 1)

    def _last_chunk(self) -> bytes:
        """The chunk that tells the usage: the upstream's, if it tells what is charged, or else one of our own."""
        self.conclude()
        chunk = self._usage_chunk
        if chunk is not None and (reply := self._read(chunk)):
            if reply.choices is None:
                chunk = None  # clients look for them in every chunk
            elif self._tally.confirms(usage.read(bytes(reply.usage))):
                return chunk
        return usage.chunk_of(chunk or self._first_chunk or b"{}", self._tally.as_json())

    def _finish(self, choice: _Choice, data: bytes) -> None:
        if choice.finish_reason == "error":
            raise self._none(data)
        self.finish_reason = choice.finish_reason
        self._finished.add(bytes(choice.index))
        if self._until is None and len(self._finished) >= self._choices:
            self._until = time.monotonic() + self._grace_s

    def _read(self, data: bytes) -> _Reply | None:
        """An answer or a chunk, None for what is no JSON object. Raises `UpstreamError` for one that tells a failure."""
        try:
            reply = _reply.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            loose = _read_loosely(data)
            if loose is None:
                return None
            reply = loose
        if reply.error is not None and self._failed(reply):
            raise self._none(data)
        return reply

    @staticmethod
    def _failed(reply: _Reply) -> bool:
        """Whether the member `error` of an answer means one: some servers name it in good answers too."""
        assert reply.error is not None
        if bytes(reply.error) == b"null":
            return False
        error = read_json(bytes(reply.error))
        return bool(reason_in(error)) if reply.choices or reply.data else bool(error)

    def _none(self, said: bytes) -> UpstreamError:
        """The failure of an attempt whose answer is none, with the reason that it gives."""
        return error_of(502, said, self._secret, otherwise=UNREADABLE)

    def close(self) -> None:
        self._answer.close()


def _read_loosely(data: bytes) -> _Reply | None:
    """What is needed of an object that is not quite what it should be, None for what is no object."""
    data = without_surrogates(data)
    try:
        return _reply.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = read_json(data)
    if not isinstance(value, dict):
        return None
    choices, vectors = value.get("choices"), value.get("data")
    return _Reply(
        usage=_raw(value["usage"]) if "usage" in value else msgspec.Raw(),
        choices=[_loose_choice(choice) for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else None,
        data=[_Vector(_raw(vector.get("embedding"))) for vector in vectors if isinstance(vector, dict)]
        if isinstance(vectors, list)
        else None,
        error=_raw(value.get("error")),
    )


def _loose_choice(choice: dict[str, Any]) -> _Choice:
    reason, delta = choice.get("finish_reason"), choice.get("delta")
    return _Choice(
        index=_raw(choice.get("index")),
        finish_reason=reason if isinstance(reason, str) else None,
        delta={name: _raw(value) for name, value in delta.items()} if isinstance(delta, dict) else None,
        message=_raw(choice.get("message")),
        text=_raw(choice.get("text")),
    )


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


class OpenAI(Adapter):
    """Any upstream that speaks OpenAI's wire format."""

    title: ClassVar[str] = "OpenAI"
    Settings: ClassVar[type[Settings]] = OpenAISettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(SPEAKS)
    settings: OpenAISettings

    PATHS: ClassVar[dict[str, str]] = {
        "chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings",
        "transcription": "/audio/transcriptions", "translation": "/audio/translations",
        "speech": "/audio/speech", "images": "/images/generations", "rerank": "/rerank",
    }  # fmt: skip
    ROW: ClassVar[OpenAIKind] = OpenAIKind(
        "OpenAI", "https://api.openai.com/v1", "max_completion_tokens", responses=True
    )

    def __init__(self, settings: OpenAISettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._pool = Pool(self.dial())
        self._boundary = secrets.token_hex(24)  # no file can know it
        self._shape = shape = shape_of(settings, self.ROW)
        self._credentials = _credentials_of(settings.secret, shape)
        self._query = f"?{urlencode(shape.query, quote_via=quote)}" if shape.query else ""
        self._renamed = tuple(shape.rename.items())
        # Paths of all models, where the name of the model is no part of them.
        paths = (*self.PATHS.values(), openai_responses.PATH)
        self._paths = {} if "{model}" in shape.path else {path: self._path(path, "") for path in paths}
        if shape.responses_path:
            self._paths[openai_responses.PATH] = shape.responses_path

    def speaks(self, dialect: str) -> bool:
        return self.settings.responses if dialect == openai_responses.SPEAKS else dialect in SPEAKS.values()

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        if request.dialect == openai_responses.SPEAKS and self.settings.responses:
            return self._open_responses(request, deployment)
        path, model, settings = self.PATHS[request.capability], deployment.upstream_model, self.settings
        speaks = SPEAKS[request.capability]
        if request.form is not None and request.dialect in FORMS:
            path, speaks = FORMS[request.dialect], request.dialect
        if request.form is None:
            accept = "*/*" if request.capability in EXCHANGES else "text/event-stream" if request.stream else JSON
            answer = self._post(path, model, object_of(self._members(request, deployment)), accept)
        else:
            answer = self._post_form(path, model, request.form)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer)
        kind = EXCHANGES.get(request.capability)
        if kind is not None:
            return kind(answer, request, speaks, settings.secret, min(GRACE_S, settings.timeout_s))
        return OpenAIExchange(answer, request, settings.secret, settings.timeout_s)

    def _open_responses(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        model, settings, shape = deployment.upstream_model, self.settings, self._shape
        body = openai_responses.body_of(request, model, shape.rename, shape.drop)
        accept = "text/event-stream" if request.stream else JSON
        answer = self._post(openai_responses.PATH, model, body, accept, request.headers)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, is_responses=True)
        return openai_responses.ResponsesExchange(answer, request, settings.secret, min(GRACE_S, settings.timeout_s))

    def _members(self, request: UpstreamRequest, deployment: Deployment) -> dict[str, bytes]:
        said = request.members
        if request.dialect != SPEAKS[request.capability]:
            said = openai_conversation.members_of(
                request.conversation(openai_conversation.TAKES), stream=request.stream, can_reason=request.can_reason,
                hears_thoughts=self.ROW.hears_thoughts,
            )  # fmt: skip
        members = {**said, "model": msgspec.json.encode(deployment.upstream_model)}
        is_written = request.capability in WRITTEN
        if is_written and request.max_output is not None:
            field = self.settings.output_limit_field if request.capability == "chat" else "max_tokens"
            members[field] = b"%d" % request.max_output
        if is_written and request.stream:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        for name, theirs in self._renamed:
            if name in members:
                members[theirs] = members.pop(name)
        for name in self._shape.drop:
            members.pop(name, None)
        return members

    def _post(
        self, path: str, model: str, body: Sequence[bytes], accept: str = JSON, more: Mapping[str, str] = NOTHING
    ) -> Answer:
        headers = {"Content-Type": "application/json", "Accept": accept, **more}
        place = self._paths.get(path) or self._path(path, model)
        return self._pool.request("POST", place, headers | self._credentials, body)

    def _path(self, path: str, model: str) -> str:
        """Where a call goes, below the base URL."""
        return self._shape.path.replace("{model}", quote(model, safe="")).replace("{path}", path) + self._query

    def _post_form(self, path: str, model: str, asked: Form) -> Answer:
        form = Form()
        rename, dropped = self._shape.rename, ("model", *self._shape.drop)
        form.fields = [(rename.get(name, name), text) for name, text in asked.fields if name not in dropped]
        form.fields.append(("model", model))
        form.files = asked.files
        headers = {"Content-Type": f"{MULTIPART}; boundary={self._boundary}", "Accept": "*/*"}
        place = self._paths.get(path) or self._path(path, model)
        return self._pool.request("POST", place, headers | self._credentials, parts_of(form, self._boundary))

    def _refusal(self, answer: Answer, *, is_responses: bool = False) -> UpstreamError:
        try:
            body = answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self.settings.timeout_s)
        except UpstreamError:  # the status has told what matters
            body = b""
        finally:
            answer.close()
        secret = self.settings.secret
        error = error_of(answer.status, body, secret, retry_after_s=seconds_in(answer.header("retry-after")))
        if is_responses:
            error.original = openai_responses.refusal_as_it_came(body, secret)
        return error

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        """A list of models may be partial, or kept from this key: of a model that it does not name only a real call
        tells whether it is there."""
        started = time.monotonic()
        offered: tuple[str, ...] = ()
        try:
            try:
                offered = tuple(model.id for model in self.list_models() or ())
            except UpstreamError as error:
                if model is None or error.unreachable or error.timed_out:
                    raise
            if model is not None and (prompt is not None or model not in offered):
                self._try(model, prompt or "Hello", parameters)
        except UpstreamError as error:
            return self._told(verdict_of(error), started, error.message, offered)
        if not offered:
            return self._told("ok", started, "The provider answers.")
        if model is not None and model not in offered:
            return self._told("ok", started, f"The provider serves '{model}', which its list does not name.", offered)
        return self._told("ok", started, f"The provider answers and offers {len(offered)} models.", offered)

    def _try(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        """A small real call: a chat or, where that is refused as it is for a model that does not chat, an embedding."""
        try:
            self._try_chat(model, prompt, parameters)
        except UpstreamError as error:
            if error.status not in (400, 404, 405, 422):
                raise
            try:
                self._ask("/embeddings", {"model": model, "input": prompt})
            except UpstreamError:
                raise error from None

    def list_models(self) -> tuple[ListedModel, ...] | None:
        path = self._shape.list_path + self._query
        answer = self._pool.request("GET", path, {"Accept": JSON} | self._credentials)
        try:
            if answer.status != 200:
                refusal = self._refusal(answer)
                if answer.status in (404, 405):
                    return None
                raise refusal
            return model_list.read(answer.read_all(model_list.MAX_BYTES, time.monotonic() + self.settings.timeout_s))
        finally:
            answer.close()

    def _try_chat(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        body = {**parameters, "model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        if not {"max_tokens", "max_completion_tokens"} & body.keys():
            body[self.settings.output_limit_field] = 16
        self._ask("/chat/completions", body)

    def _ask(self, path: str, body: dict[str, Any]) -> None:
        """Send a question whose answer only has to be one: a choice or a vector. Raises `UpstreamError`."""
        answer = self._post(path, str(body["model"]), [msgspec.json.encode(body)])
        if answer.status != 200:
            raise self._refusal(answer)
        said = answer.read_all()
        reply = _read_loosely(said)
        if reply is None or not (reply.choices or reply.data):
            otherwise = "The provider's answer can't be read; is the base URL right?"
            raise error_of(502, said, self.settings.secret, otherwise=otherwise)

    @staticmethod
    def _told(result: CheckVerdict, started: float, detail: str, models: tuple[str, ...] = ()) -> CheckResult:
        return CheckResult(
            result=result, latency_ms=int((time.monotonic() - started) * 1000), detail=detail, models=models
        )

    def close(self) -> None:
        self._pool.close()


_NO_MODEL = re.compile(r"\b(?:unknown|invalid|no such) model|\bmodel\b.{0,200}?\bnot (?:found|exist)", re.IGNORECASE)


def verdict_of(error: UpstreamError) -> CheckVerdict:
    """What a failed try tells an administrator."""
    if error.timed_out:
        return "timeout"
    if error.status in (401, 403):
        return "auth_error"
    if error.status == 404 or error.code == "model_not_found" or (error.refused and _NO_MODEL.search(error.message)):
        return "model_not_found"
    if error.unreachable:
        return "connection_error"
    return "bad_response"


def _with_usage(raw: bytes | None) -> bytes:
    """The client's stream options, with usage asked for."""
    options = _options.decode(raw) if raw is not None else None
    return msgspec.json.encode({**(options or {}), "include_usage": True})


DEPLOYMENTS = "/deployments/{model}{path}"
DEPLOYMENTS_VERSION = "2024-10-21"


def shape_of(settings: OpenAISettings, row: OpenAIKind) -> OpenAIKind:
    """A kind's row with what these settings say instead."""
    shape = row._replace(**{name: getattr(settings, name) for name in row.asks})
    if "api_version" not in row.asks:
        return shape
    path, version, responses_path = shape.path, shape.api_version, ""
    base = settings.base_url.rstrip("/")
    root = "" if base.endswith(("/openai", "/v1")) else "/openai"
    if not base.endswith("/v1"):
        path = root + DEPLOYMENTS
        version = version or DEPLOYMENTS_VERSION
        responses_path = f"{root}/v1{openai_responses.PATH}"  # the interface with deployments has none
    return shape._replace(
        path=path, list_path=root + shape.list_path, query={"api-version": version} if version else {},
        responses_path=responses_path,
    )  # fmt: skip


def _credentials_of(secret: str | None, shape: OpenAIKind) -> dict[str, str]:
    """The headers by which the upstream knows us, and those of its own that it asks for."""
    if not secret or shape.auth == "none":
        return dict(shape.headers)
    if shape.auth == "bearer":
        return {"Authorization": f"Bearer {secret}", **shape.headers}
    if shape.auth == "basic":
        pair = base64.b64encode(f"{shape.username}:{secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}", **shape.headers}
    return {shape.auth_header: secret, **shape.headers}


def of_kind(row: OpenAIKind) -> type[OpenAI]:
    """The adapter of a kind that differs from OpenAI by its row alone."""
    name = re.sub(r"\W", "", row.title)
    base: Any = ("base_url", BaseUrl) if row.base_url is None else ("base_url", BaseUrl, row.base_url)
    own: list[Any] = [
        base,
        ("output_limit_field", OutputLimitField, row.output_limit_field),
        ("responses", Responses, row.responses),
    ]
    for setting in row.asks:
        own.append((setting, SHAPE[setting], _default(getattr(row, setting))))
    settings = msgspec.defstruct(
        f"{name}Settings", own, bases=(OpenAISettings,), module=__name__, kw_only=True, forbid_unknown_fields=True
    )
    module, _, asks_by_itself = row.tasks.partition(".")
    parent = getattr(import_module(f"app.providers.{module}"), asks_by_itself) if module else OpenAI
    return type(name, (parent,), {"title": row.title, "Settings": settings, "ROW": row, "__module__": __name__})


def _default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return msgspec.field(default_factory=lambda: dict(value))
    if isinstance(value, tuple):
        return msgspec.field(default_factory=lambda: list(value))
    return value or ""


ADAPTER = OpenAI
