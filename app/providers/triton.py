"""NVIDIA's Triton: models by their tensors, over gRPC or HTTP, for clients that speak of chats, embeddings and sounds.

The scheme of the address chooses the transport. Which tensor means what is recognised from the model's own config, completed
by a preset and by the deployment's settings.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import structlog
from msgspec import Meta

from app.directory import Capability, Deployment
from app.providers import chat_template, triton_grpc
from app.providers.addresses import HTTP, AddressPolicy, origin_of
from app.providers.base import (
    Adapter,
    CheckResult,
    CheckVerdict,
    Exchange,
    ModelReport,
    Recognised,
    TensorRow,
    UpstreamError,
    UpstreamRequest,
)
from app.providers.dial import Dial
from app.providers.model_list import LONGEST_ID, ListedModel
from app.providers.openai import ApiKey, ApiKeyEnv, verdict_of
from app.providers.openai_embeddings import texts_of
from app.providers.settings import Settings, address
from app.providers.triton_exchanges import TritonCompletions, TritonEmbeddings, TritonSpeech, TritonText
from app.providers.triton_http import HttpTransport
from app.providers.triton_speech import samples_of, text_of_file
from app.providers.triton_tensors import (
    PRESETS,
    Input,
    Name,
    Output,
    Preset,
    Spec,
    Tensor,
    TensorMap,
    map_of,
    model_of,
    preset_of,
    tensor_of,
)
from app.providers.triton_transport import Answers, Transport

log = structlog.get_logger("providers.triton")

GRPC = ("grpc", "grpcs")
USUAL_PORTS = {8001: 8000}  # of gRPC and of HTTP on the same server
BELIEVED_S = 60.0  # what a model said of itself
DEFAULT_MAX_TOKENS = 1024  # where a model must be told a limit and nobody gave one
# Members of OpenAI's format, or its widest servers', that are sampling parameters; the neutral language has no word for them.
SAMPLING = ("presence_penalty", "frequency_penalty", "seed", "top_k", "min_p", "repetition_penalty", "min_tokens")
# Members of completions that would change the meaning if they were left out, and the values that say nothing.
UNTOLD: dict[str, tuple[Any, ...]] = {
    "n": (None, 1), "best_of": (None, 0, 1), "echo": (None, False), "suffix": (None, ""), "logprobs": (None,),
    "logit_bias": (None, {}),
}  # fmt: skip


class TritonSettings(Settings):
    """What a Triton server can be told."""

    base_url: Annotated[
        str,
        Meta(
            title="Address",
            description="grpc://host:8001 or http://host:8000; with TLS grpcs:// or https://.",
            max_length=500,
            extra=address(*HTTP, *GRPC),
        ),
    ]
    http_url: Annotated[
        Annotated[str, Meta(max_length=500)] | None,
        Meta(
            title="HTTP address",
            description="Used where gRPC can't be. Without it, port 8000 beside port 8001.",
            extra=address(*HTTP),
        ),
    ] = None
    api_key: ApiKey = None
    api_key_env: ApiKeyEnv = None


class TritonDeployment(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which tensors of a model mean what, as far as it can't be recognised, and how a chat becomes its prompt."""

    preset: Preset = "auto"
    ask_model: bool = True  # for its config; False: it is as the preset says
    version: Annotated[str, Meta(max_length=40)] = ""
    inputs: dict[Input, Name] = {}
    outputs: dict[Output, Name] = {}
    constants: dict[Name, Any] = {}  # inputs that always have the same value
    chat_template: Annotated[str, Meta(max_length=chat_template.LONGEST_TEMPLATE)] | None = None
    bos_token: Annotated[str, Meta(max_length=100)] = ""
    eos_token: Annotated[str, Meta(max_length=100)] = ""
    repeats_text: bool = False  # each answer of a stream repeats the text before it

    def __post_init__(self) -> None:
        if not self.ask_model and self.preset not in PRESETS:
            raise ValueError("A model that is not asked for its tensors needs a preset.")
        if self.chat_template is not None:
            try:
                chat_template.check(self.chat_template)
            except chat_template.TemplateFailed as error:
                raise ValueError(f"{str(error).capitalize()}.") from None


class _Known(msgspec.Struct):
    """A deployment's map, until when it is believed."""

    deployment: Deployment
    settings: TritonDeployment
    map: TensorMap
    until: float


class Triton(Adapter):
    """A Triton server."""

    title: ClassVar[str] = "Triton"
    Settings: ClassVar[type[Settings]] = TritonSettings
    DeploymentSettings: ClassVar[type[msgspec.Struct] | None] = TritonDeployment
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat", "completions", "embeddings", "transcription"))
    settings: TritonSettings

    def __init__(self, settings: TritonSettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        self._secrets = settings.secrets()
        self._known: dict[tuple[str, str], _Known] = {}
        self._transport = self._chosen()

    def _chosen(self) -> Transport:
        """The transport of the address's scheme; HTTP where this process can't speak gRPC."""
        dial = self.dial("base_url")
        if dial.origin.scheme in HTTP:
            return HttpTransport(dial, self._secrets)
        reason = triton_grpc.trouble()
        if reason is None:
            return triton_grpc.GrpcTransport(dial, self._secrets)
        log.error("gRPC can't be used: HTTP takes over", reason=reason)
        dial = Dial(self._http_url(), deadlines=self.settings.deadlines, policy=self._policy)
        # A secret goes only where it was given for, and a port that is guessed is another place.
        return HttpTransport(dial, self._secrets if self.settings.http_url else ())

    def _http_url(self) -> str:
        if self.settings.http_url:
            return self.settings.http_url
        origin = origin_of(self.settings.base_url, GRPC)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        return f"http{'s' if origin.secure else ''}://{host}:{USUAL_PORTS.get(origin.port, origin.port)}"

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        known = self._map(deployment, request.capability)
        try:
            match request.capability:
                case "embeddings":
                    return self._embeddings(request, deployment, known)
                case "completions":
                    return self._completions(request, deployment, known)
                case "transcription":
                    return self._speech(request, deployment, known)
            return self._text(request, deployment, known)
        except UpstreamError as error:
            if not error.refused:  # the model may be another one by now
                self._known.pop((deployment.id, request.capability), None)
            raise

    def _map(self, deployment: Deployment, capability: str) -> _Known:
        """Which tensors a deployment's model has. Raises `UpstreamError`."""
        key = (deployment.id, capability)
        known = self._known.get(key)
        if known is not None and known.deployment == deployment and time.monotonic() < known.until:
            return known
        try:
            settings = msgspec.convert(deployment.settings, TritonDeployment)
        except msgspec.ValidationError as error:
            raise UpstreamError(f"The settings of this model's deployment can't be used: {error}") from None
        if settings.ask_model:
            model = model_of(self._transport.config(deployment.upstream_model, settings.version))
        else:
            model = preset_of(settings.preset, capability)
        found = map_of(model, capability, settings.preset, settings.inputs, settings.outputs, settings.constants)
        self._known[key] = known = _Known(deployment, settings, found, time.monotonic() + BELIEVED_S)
        return known

    def _text(self, request: UpstreamRequest, deployment: Deployment, known: _Known) -> Exchange:
        settings, tensors = known.settings, known.map
        inputs = inputs_of(request, settings, tensors, pieces=self._pieces(request))
        stream = tensors.model.is_decoupled or request.stream
        answers = self._transport.generate(deployment.upstream_model, settings.version, inputs, stream=stream)
        return TritonText(answers, request, tensors, repeats_text=settings.repeats_text)

    def _pieces(self, request: UpstreamRequest) -> bool:
        """Whether a model is to give its text in pieces, also where nobody asked for a stream: so that it can be stopped."""
        return request.stream or not self._transport.cancels

    def _completions(self, request: UpstreamRequest, deployment: Deployment, known: _Known) -> Exchange:
        settings, tensors = known.settings, known.map
        inputs = inputs_of_completions(request, tensors, pieces=self._pieces(request))
        stream = tensors.model.is_decoupled or request.stream
        answers: list[Answers] = []
        try:
            for one in inputs:
                answers.append(
                    self._transport.generate(deployment.upstream_model, settings.version, one, stream=stream)
                )
        except BaseException:
            for begun in answers:
                begun.close()
            raise
        return TritonCompletions(answers, request, tensors, repeats_text=settings.repeats_text)

    def _embeddings(self, request: UpstreamRequest, deployment: Deployment, known: _Known) -> Exchange:
        texts = texts_of(request)
        version, tensors = known.settings.version, known.map
        spec = tensors.inputs["prompt"]
        most = tensors.model.batch or (len(texts) if spec.dims and spec.dims[0] == -1 else 1)
        answers: list[tuple[int, dict[str, Tensor]]] = []
        for start in range(0, len(texts), most):
            part = texts[start : start + most]
            inputs = [tensors.tensor("prompt", part, len(part)), *constants_of(tensors, len(part))]
            answers.append((len(part), self._transport.infer(deployment.upstream_model, version, inputs)))
        return TritonEmbeddings(answers, request, tensors.outputs)

    def _speech(self, request: UpstreamRequest, deployment: Deployment, known: _Known) -> Exchange:
        tensors, parsed = known.map, request.parsed
        assert request.form is not None
        (file,) = request.form.files
        if "audio" in tensors.inputs:
            inputs = [tensors.tensor("audio", [text_of_file(file)])]
        else:
            samples, rate = samples_of(file)
            inputs = [tensors.tensor("samples", samples)]
            if "sample_rate" in tensors.inputs:
                inputs.append(tensors.tensor("sample_rate", [rate]))
        given = {"language": parsed.language, "hint": parsed.prompt, "temperature": parsed.temperature}
        inputs += [tensors.tensor(name, [value]) for name, value in given.items() if value and name in tensors.inputs]
        inputs += constants_of(tensors)
        model, version = deployment.upstream_model, known.settings.version
        if tensors.model.is_decoupled:
            answers = self._transport.generate(model, version, inputs, stream=True)
            return TritonSpeech(answers, request, tensors)
        said = self._transport.infer(model, version, inputs)
        return TritonSpeech([{name: list(one.values) for name, one in said.items()}], request, tensors)

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        started = time.monotonic()
        offered: tuple[str, ...] = ()
        try:
            if not self._transport.is_ready():
                raise UpstreamError("The server is not ready.")
            offered = tuple(one.id for one in self.list_models())
            if model is not None:
                if model not in offered:
                    raise UpstreamError(f"The server has no model '{model}' that is ready.", status=404)
                if prompt is not None:
                    self._try(model, prompt, parameters)
        except UpstreamError as error:
            return _told(verdict_of(error), started, error.message, offered)
        return _told("ok", started, f"The server is ready and offers {len(offered)} models.", offered)

    def _try(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        """A small real call to a model that takes a text. Raises `UpstreamError`."""
        tensors = model_of(self._transport.config(model, ""))
        try:
            found = map_of(tensors, "chat")
        except UpstreamError:
            found = map_of(tensors, "embeddings")
            items = 1 if tensors.batch else None
            self._transport.infer(model, "", [found.tensor("prompt", [prompt], items), *constants_of(found)])
            return
        request = UpstreamRequest(
            capability="chat", dialect="", model=model, parsed=None, max_output=16,
            members={name: msgspec.json.encode(value) for name, value in parameters.items()},
        )  # fmt: skip
        inputs = [
            found.tensor("prompt", [prompt]),
            *_given(request, found, {}),
            *constants_of(found),
        ]
        answers = self._transport.generate(model, "", inputs, stream=tensors.is_decoupled)
        try:
            if not list(answers):
                raise UpstreamError("The model answered nothing.")
        finally:
            answers.close()

    def list_models(self) -> tuple[ListedModel, ...]:
        """The models of the repository that are ready."""
        told = self._transport.index()
        return tuple(ListedModel(name) for name, is_ready in sorted(_states(told).items()) if is_ready)

    def reports(self) -> tuple[ModelReport, ...]:
        states = _states(self._transport.index())
        figures: dict[str, dict[str, tuple[int, int]]] = {}
        for one in self._transport.statistics() or ():
            figures[one.get("name", "")] = _figures(one.get("inference_stats") or {})
        return tuple(_report(name, states[name], figures.get(name, {})) for name in sorted(states))

    def recognise(self, model: str, settings: dict[str, Any]) -> Recognised:
        try:
            told = msgspec.convert(settings, TritonDeployment)
        except msgspec.ValidationError as error:
            raise UpstreamError(f"These settings can't be used: {error}") from None
        found = model_of(self._transport.config(model, told.version))
        meanings: dict[tuple[str, str], list[str]] = {}
        usable: list[Capability] = []
        troubles: dict[str, str] = {}
        for capability in sorted(self.abilities):
            try:
                tensors = map_of(found, capability, told.preset, told.inputs, told.outputs, told.constants)
            except UpstreamError as error:
                troubles[capability] = error.message
                continue
            usable.append(capability)
            for meaning, spec in tensors.inputs.items():
                meanings.setdefault(("input", spec.name), []).append(meaning)
            for meaning, name in tensors.outputs.items():
                meanings.setdefault(("output", name), []).append(meaning)
            for name in tensors.constants:
                meanings.setdefault(("input", name), []).append("constant")
        rows = [_row("input", spec, meanings) for spec in found.inputs.values()]
        rows += [_row("output", spec, meanings) for spec in found.outputs.values()]
        return Recognised(rows=tuple(rows), usable=tuple(usable), troubles=troubles)

    def close(self) -> None:
        self._transport.close()


def _row(direction: Literal["input", "output"], spec: Spec, meanings: dict[tuple[str, str], list[str]]) -> TensorRow:
    return TensorRow(
        direction=direction,
        name=spec.name,
        type=spec.datatype + (", optional" if spec.is_optional else ""),
        shape=" × ".join("any" if size < 0 else str(size) for size in spec.dims) or "1",
        meaning=", ".join(dict.fromkeys(meanings.get((direction, spec.name), ()))),
    )


def inputs_of(
    request: UpstreamRequest, settings: TritonDeployment, tensors: TensorMap, *, pieces: bool
) -> list[Tensor]:
    """The tensors of a chat. Raises `UpstreamError` for what the model can't be told."""
    conversation = request.conversation()
    if conversation.schema is not None:
        said = "This model does not take 'response_format'. Leave it out."
        raise UpstreamError(said, refused=True, status=400, param="response_format")
    if "messages" in tensors.inputs:
        messages = msgspec.json.encode(chat_template.messages_of(conversation))
        inputs = [tensors.tensor("messages", [messages])]
    else:
        special = {"bos_token": settings.bos_token, "eos_token": settings.eos_token}
        prompt = chat_template.prompt_of(conversation, settings.chat_template, special)
        inputs = [tensors.tensor("prompt", [prompt])]
    more = {
        "temperature": conversation.temperature,
        "top_p": conversation.top_p,
        "stop": list(conversation.stop) or None,
    }
    return [*inputs, *_beside(request, tensors, more, pieces)]


def inputs_of_completions(request: UpstreamRequest, tensors: TensorMap, *, pieces: bool) -> list[list[Tensor]]:
    """The tensors of each prompt. Raises `UpstreamError` for what the model can't be told."""
    parsed = request.parsed
    for name, empty in UNTOLD.items():
        if getattr(parsed, name) not in empty:
            raise UpstreamError(
                f"This model does not take '{name}'. Leave it out.", refused=True, status=400, param=name
            )
    if not all(isinstance(text, str) for text in parsed.prompt):
        raise UpstreamError("This model takes texts and no tokens.", refused=True, status=400, param="prompt")
    if "prompt" not in tensors.inputs:
        raise UpstreamError("This model takes chats alone.", refused=True, status=400, param="model")
    stop = [parsed.stop] if isinstance(parsed.stop, str) else parsed.stop
    beside = _beside(
        request, tensors, {"temperature": parsed.temperature, "top_p": parsed.top_p, "stop": stop or None}, pieces
    )
    return [[tensors.tensor("prompt", [text]), *beside] for text in parsed.prompt]


def _beside(request: UpstreamRequest, tensors: TensorMap, more: dict[str, Any], pieces: bool) -> list[Tensor]:
    """What goes with a prompt: whether it streams, the parameters that were given, and what is always the same."""
    stream = []
    if "stream" in tensors.inputs and tensors.model.is_decoupled:
        stream = [tensors.tensor("stream", [pieces])]
    return [*stream, *_given(request, tensors, more), *constants_of(tensors)]


def _given(request: UpstreamRequest, tensors: TensorMap, more: dict[str, Any]) -> list[Tensor]:
    """The sampling parameters that were given, `more` among them, as tensors of their own or as one in JSON."""
    given: dict[str, Any] = {}
    for name in SAMPLING:
        if name in request.members and (value := msgspec.json.decode(request.members[name])) is not None:
            given[name] = value
    given |= {name: value for name, value in more.items() if value is not None}
    if request.max_output is not None:
        given["max_tokens"] = request.max_output
    limit = tensors.inputs.get("max_tokens")
    if limit is not None and not limit.is_optional:
        given.setdefault("max_tokens", min(request.possible.answer, DEFAULT_MAX_TOKENS))
    if "sampling_parameters" in tensors.inputs:
        return [tensors.tensor("sampling_parameters", [msgspec.json.encode(given)])] if given else []
    if "stop" in given and "stop" not in tensors.inputs:
        raise UpstreamError("This model takes no 'stop'. Leave it out.", refused=True, status=400, param="stop")
    return [
        tensors.tensor(name, value if isinstance(value, list) else [value])
        for name, value in given.items()
        if name in tensors.inputs
    ]


def constants_of(tensors: TensorMap, items: int = 1) -> list[Tensor]:
    """The inputs that always have the same value."""
    made = []
    for name, value in tensors.constants.items():
        values = value if isinstance(value, list) else [value]
        batched = items if tensors.model.batch and len(values) == 1 else None
        made.append(tensor_of(tensors.model.inputs[name], values * (batched or 1), tensors.model.batch, batched))
    return made


def _states(index: list[Any]) -> dict[str, bool]:
    """The models of an index by name, and whether a version of each is ready."""
    found: dict[str, bool] = {}
    for one in index:
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(name, str) and 1 <= len(name) <= LONGEST_ID and name.isprintable():
            found[name] = found.get(name, False) or one.get("state") == "READY"
    return found


def _figures(stats: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """How often each thing happened and how long it took, ns."""
    return {name: (int(one.get("count") or 0), int(one.get("ns") or 0)) for name, one in stats.items()}


def _report(name: str, is_ready: bool, figures: dict[str, tuple[int, int]]) -> ModelReport:
    nothing = (0, 0)
    queued, queue_ns = figures.get("queue", nothing)
    ran, run_ns = figures.get("compute_infer", nothing)
    return ModelReport(
        name=name,
        is_ready=is_ready,
        succeeded=figures.get("success", nothing)[0],
        failed=figures.get("fail", nothing)[0],
        queue_ms=queue_ns / queued / 1e6 if queued else None,
        compute_ms=run_ns / ran / 1e6 if ran else None,
    )


def _told(result: CheckVerdict, started: float, detail: str, models: tuple[str, ...]) -> CheckResult:
    return CheckResult(result=result, latency_ms=int((time.monotonic() - started) * 1000), detail=detail, models=models)


ADAPTER = Triton
