"""OpenAI, and every upstream that speaks its wire format.

The body goes up as it came but for the few members that must change; answers come back byte for byte but for the
model's name, which is the portal's, and the usage chunk, which only those see who asked for it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from app.directory import Capability, Deployment
from app.gateway.envelope import seal_envelope
from app.providers import usage
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, CheckResult, CheckVerdict, Demand, Exchange, UpstreamError, Usage
from app.providers.settings import SECRET, Settings, SettingsError
from app.providers.wire import Answer, Pool, origin_of, safe_to_show, split_events

ApiKey = Annotated[str | None, Meta(title="API key", description="Kept encrypted.", extra=SECRET)]
VariableName = Annotated[str, Meta(pattern=r"^(?!CONFIG_)[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
ApiKeyEnv = Annotated[
    VariableName | None,
    Meta(
        title="API key from the environment",
        description="The name of an environment variable of the gateway that holds the key, instead of the key itself.",
    ),
]
BaseUrl = Annotated[str, Meta(title="Base URL", description="Includes /v1.", max_length=500)]
OutputLimitField = Annotated[
    Literal["max_completion_tokens", "max_tokens"],
    Meta(title="Output limit field", description="The member by which this upstream lets itself be limited."),
]


class OpenAISettings(Settings):
    """What an OpenAI-shaped upstream can be told."""

    base_url: BaseUrl = "https://api.openai.com/v1"
    api_key: ApiKey = None
    api_key_env: ApiKeyEnv = None
    output_limit_field: OutputLimitField = "max_completion_tokens"

    def __post_init__(self) -> None:
        try:
            origin_of(self.base_url)
        except ValueError as error:
            raise SettingsError("base_url", str(error)) from None

    @property
    def secret(self) -> str | None:
        return os.environ.get(self.api_key_env) if self.api_key_env else self.api_key


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    delta: dict[str, msgspec.Raw] | None = None


class _Reply(msgspec.Struct, gc=False):
    """What the gateway needs of an answer or a chunk."""

    usage: msgspec.Raw = msgspec.Raw()
    choices: list[_Choice] | None = None
    error: msgspec.Raw | None = None


class _Listed(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    """The models an upstream offers."""

    data: list[_Listed]


_reply = msgspec.json.Decoder(_Reply)
_MODEL = re.compile(rb'"model"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)')
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,')


class OpenAIExchange(Exchange):
    """One request to an OpenAI-shaped upstream whose head was 200."""

    def __init__(self, answer: Answer, demand: Demand, secret: str | None) -> None:
        self._answer = answer
        self._demand = demand
        self._secret = secret
        self._model = b'"model":' + msgspec.json.encode(demand.model)
        self._theirs: bytes | None = None  # the same member as the upstream spells it
        self._tally = usage.Tally(demand)
        self.usage = self._tally.usage
        self._no_usage: bytes | None = None  # `"usage":null` as the upstream spells it
        self._first_chunk = b""
        self._usage_chunk: bytes | None = None  # the upstream's last, held back until the end
        self.finish_reason = None

    def body(self) -> bytes:
        body = self._answer.read_all()
        reply = self._read(body)
        self._tally.hear_whole(body)
        told = self._tally.tell(bytes(reply.usage))
        self.conclude()
        if not self._tally.confirms(told):
            body = usage.with_member(body, "usage", self._tally.as_json())
        if reply.choices:
            self.finish_reason = reply.choices[0].finish_reason
        return self._named(body)

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def events(self) -> Iterator[bytes]:
        for event in split_events(self._answer):
            if event.startswith(b"data: ") and b"\n" not in event:
                data = event[6:]
            else:
                data = b"\n".join(line[5:].lstrip(b" ") for line in event.splitlines() if line.startswith(b"data:"))
            if not data:  # a comment that keeps the connection alive
                continue
            if data.strip() == b"[DONE]":
                self._drain()
                break
            if passed_on := self._count(data):
                yield b"data: " + self._named(passed_on) + b"\n\n"
        else:
            if self.finish_reason is None:
                raise UpstreamError("The provider's stream ended before it was complete.")
            # Some upstreams leave [DONE] out; their last choice told that it was the last.
        if self._demand.include_usage:
            yield b"data: " + self._named(self._last_chunk()) + b"\n\n"

    def _count(self, data: bytes) -> bytes:
        """Count a chunk; what of it the client is to see, nothing of a chunk that only tells usage."""
        reply = self._read(data)
        for choice in reply.choices or ():
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
            if choice.delta:
                self._tally.hear(choice.delta)
        if not self._first_chunk:
            self._first_chunk = data
        told = bytes(reply.usage)
        if not told:
            return data
        if told == b"null":
            return data if self._demand.include_usage else self._without_null(data)
        self._tally.tell(told)
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
        if chunk is not None and self._tally.confirms(usage.read(bytes(self._read(chunk).usage))):
            return chunk
        return usage.chunk_of(chunk or self._first_chunk or b"{}", self._tally.as_json())

    def _read(self, data: bytes) -> _Reply:
        try:
            reply = _reply.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamError("The provider's answer can't be read.") from None
        if reply.error is not None and reply.choices is None and bytes(reply.error) != b"null":
            raise error_of(502, data, self._secret)
        return reply

    def _named(self, data: bytes) -> bytes:
        """`data` with the portal's name of the model; a stream spells its own name the same way all along."""
        theirs = self._theirs
        if theirs is None or theirs not in data:
            found = _MODEL.search(data)
            if found is None:
                return data
            self._theirs = theirs = found[0]
        return data.replace(theirs, self._model, 1)

    def _drain(self) -> None:
        """Read to the end of the answer, so that its connection can be kept; only what comes at once."""
        while self._answer.read():
            continue

    def close(self) -> None:
        self._answer.close()


class OpenAI(Adapter):
    """Any upstream that speaks OpenAI's wire format."""

    title: ClassVar[str] = "OpenAI"
    Settings: ClassVar[type[Settings]] = OpenAISettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat", "embeddings"))
    settings: OpenAISettings

    PATHS: ClassVar[dict[str, str]] = {"chat": "/chat/completions", "embeddings": "/embeddings"}

    def __init__(self, settings: OpenAISettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._pool = Pool(settings.base_url, timeout_s=settings.timeout_s, policy=policy)

    def open(self, demand: Demand, deployment: Deployment) -> Exchange:
        answer = self._post(
            self.PATHS[demand.capability], seal_envelope(self._members(demand, deployment)), demand.stream
        )
        if answer.status != 200:
            raise self._refusal(answer)
        return OpenAIExchange(answer, demand, self.settings.secret)

    def _members(self, demand: Demand, deployment: Deployment) -> dict[str, bytes]:
        members = {**demand.members, "model": msgspec.json.encode(deployment.upstream_model)}
        if demand.max_output is not None and not {"max_tokens", "max_completion_tokens"} & members.keys():
            members[self.settings.output_limit_field] = b"%d" % demand.max_output
        if demand.stream:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        return members

    def _post(self, path: str, body: Sequence[bytes], stream: bool) -> Answer:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream" if stream else "application/json"}
        return self._pool.request("POST", path, headers | self._credentials(), body)

    def _credentials(self) -> dict[str, str]:
        secret = self.settings.secret
        return {"Authorization": f"Bearer {secret}"} if secret else {}

    def _refusal(self, answer: Answer) -> UpstreamError:
        try:
            body = answer.read_all()
        finally:
            answer.close()
        return error_of(answer.status, body, self.settings.secret, _seconds(answer.header("retry-after")))

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        started = time.monotonic()
        try:
            offered = self._offered()
            if model is not None and offered and model not in offered:
                return self._told("model_not_found", started, f"The provider does not offer '{model}'.", offered)
            if model is not None and (prompt is not None or not offered):
                self._try_chat(model, prompt or "Hello", parameters)
        except UpstreamError as error:
            return self._told(verdict_of(error), started, error.message)
        if not offered:
            return self._told("ok", started, "The provider answers.")
        return self._told("ok", started, f"The provider answers and offers {len(offered)} models.", offered)

    def _offered(self) -> tuple[str, ...]:
        """The models the upstream lists, none when it has no list."""

        answer = self._pool.request("GET", "/models", {"Accept": "application/json"} | self._credentials())
        if answer.status in (404, 405):
            answer.read_all()
            return ()
        if answer.status != 200:
            raise self._refusal(answer)
        try:
            return tuple(item.id for item in msgspec.json.decode(answer.read_all(), type=_Listing).data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamError("The provider's list of models can't be read; is the base URL right?") from None

    def _try_chat(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        body = {**parameters, "model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
        if not {"max_tokens", "max_completion_tokens"} & body.keys():
            body[self.settings.output_limit_field] = 16
        answer = self._post("/chat/completions", [msgspec.json.encode(body)], stream=False)
        if answer.status != 200:
            raise self._refusal(answer)
        try:
            _reply.decode(answer.read_all())
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamError("The provider's answer can't be read; is the base URL right?") from None

    @staticmethod
    def _told(result: CheckVerdict, started: float, detail: str, models: tuple[str, ...] = ()) -> CheckResult:
        return CheckResult(
            result=result, latency_ms=int((time.monotonic() - started) * 1000), detail=detail, models=models
        )

    def close(self) -> None:
        self._pool.close()


def verdict_of(error: UpstreamError) -> CheckVerdict:
    """What a failed try tells an administrator."""
    if error.timed_out:
        return "timeout"
    if error.status in (401, 403):
        return "auth_error"
    if error.status == 404 or error.code == "model_not_found":
        return "model_not_found"
    if error.unreachable:
        return "connection_error"
    return "bad_response"


def error_of(status: int, body: bytes, secret: str | None, retry_after_s: float | None = None) -> UpstreamError:
    """An upstream's error answer, in whatever shape it came, as one that is safe to show."""
    message, param, code = "", None, None
    try:
        told = msgspec.json.decode(body)
        inner = told.get("error", told) if isinstance(told, dict) else told
        if isinstance(inner, dict):
            message = str(inner.get("message") or inner.get("detail") or "")
            param = inner["param"] if isinstance(inner.get("param"), str) else None
            code = inner["code"] if isinstance(inner.get("code"), str) else None
        elif isinstance(inner, str):
            message = inner
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    shown = safe_to_show(message, secret) or f"The provider answered with status {status}."
    return UpstreamError(
        shown, status=status, refused=status in (400, 413, 422), retry_after_s=retry_after_s, param=param, code=code
    )


def _with_usage(raw: bytes | None) -> bytes:
    """The client's stream options, with usage asked for."""
    options = msgspec.json.decode(raw) if raw is not None else None
    return msgspec.json.encode({**(options or {}), "include_usage": True})


def _seconds(text: str | None) -> float | None:
    try:
        return max(float(text), 0.0) if text is not None else None
    except ValueError:  # a date: the caller's own default serves
        return None


ADAPTER = OpenAI
