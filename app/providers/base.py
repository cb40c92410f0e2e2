"""What an adapter is: the one place that knows how an upstream wants to be asked and how it answers.

One exchange is one attempt at one upstream, in four moments: the request, the head of the answer, its body or stream, and
its error. An adapter gives usage with the bytes. These are in the dialect that the upstream speaks (`Exchange.speaks`); for
clients of another dialect it reads a `Conversation` and gives neutral events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from app.directory import Capability, Deployment
from app.providers.addresses import AddressPolicy
from app.providers.conversation import Conversation, Event, Reply
from app.providers.dial import Dial
from app.providers.errors import UpstreamError as UpstreamError
from app.providers.model_list import ListedModel
from app.providers.settings import Settings, schemes_of
from app.providers.tokens import Sample, sample, texts_of
from app.runtime.forms import Form
from app.runtime.jsonbody import RawObject

CheckVerdict = Literal["ok", "model_not_found", "auth_error", "connection_error", "timeout", "bad_response"]
# A stream's pieces. What it returns is its last piece, which tells clients the end: it leaves once the call is settled.
Pieces = Generator[bytes, None, bytes | None]

UNBOUNDED = 2**40  # tokens: for a request of which nothing is known
PROMPT_KEPT = 16_384  # characters of a prompt that a stream keeps, to count its tokens if nobody tells them
SPOKEN = ("system", "messages", "input", "prompt", "suffix", "instructions")  # members whose texts a model reads
DESCRIBED = ("tools", "functions", "response_format", "text")  # members of which it reads the names of members too
PROMPT_COUNTED = 2 << 20  # characters of any prompt that are counted; the rest is taken to be alike


class Usage(msgspec.Struct):
    """What an attempt used, as far as is known. `estimated` when the upstream did not say, or said what can't be."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # part of prompt_tokens
    completion_tokens: int = 0
    more: dict[str, int] = {}  # other quantities, by the names of `app.metering.quantities`
    service_tier: str | None = None  # as the upstream told it
    estimated: bool = True
    certain: tuple[str, ...] = ()  # quantities that are exact although others are estimated
    unpriced: dict[str, int] = {}  # what the upstream did besides, by its own names, for which no price has a member
    unreadable: str | None = None  # a figure of the upstream's that was not believed, such as "prompt_tokens 1e+18"

    @property
    def counts(self) -> dict[str, int]:
        """All quantities that are known, by name."""
        counts = {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
        }
        return counts | self.more if self.more else counts


class Possible(NamedTuple):
    """The most that a request can have used, in tokens."""

    prompt: int = UNBOUNDED  # what was sent
    told_prompt: int = UNBOUNDED  # what was sent, and what the upstream may have added to it
    answer: int = UNBOUNDED  # each answer, whatever limit was sent
    answers: int = 1


class UpstreamRequest(msgspec.Struct, kw_only=True):
    """What a client asked for, checked, as adapters need it.

    `members` are the top-level members of the body as raw JSON; the gateway's own are taken out, and those that limit
    the answer. `max_output` is the one limit that is to be sent, in whole tokens: what the client asked for, or less,
    if less was reserved; None for none.
    """

    capability: Capability
    dialect: str  # of `members` or `form`
    model: str  # the portal's name for it, which the answer bears
    members: dict[str, bytes]
    parsed: Any
    stream: bool = False
    include_usage: bool = False
    prompt_estimate: int = 0
    max_output: int | None = None
    possible: Possible = Possible()
    remembered: Sample | None = None  # of a long question, once it is forgotten
    translate: Callable[[UpstreamRequest], Conversation] | None = None
    keep_alive_s: float = 15.0  # after how much silence a stream gives a sign of life
    form: Form | None = None  # what was asked, where the body is a form; `members` are none then
    raw: RawObject | None = None  # the body as it came, if it may go up so; `members` are the same
    headers: Mapping[str, str] = {}  # the client's, those that its dialect passes on (`Dialect.headers`)
    usual_output: int = 0  # the limit for an upstream that must be given one, if `max_output` is None
    can_reason: bool = False  # the model is known to think before it answers
    noted: Any = None  # what the client's dialect noted of the question, for its answer
    takes: frozenset[str] = frozenset()  # what its upstream takes that most do not: names of `Conversation.more`

    def conversation(self, takes: frozenset[str] = frozenset()) -> Conversation:
        """The request in the neutral language, for an upstream that speaks another dialect, and `takes` these besides."""
        assert self.translate is not None, f"{self.dialect} is not translated"
        self.takes = takes
        return self.translate(self)

    def question(self) -> Sample:
        """The text of the prompt, for its tokens to be counted."""
        if self.remembered is not None:
            return self.remembered
        texts: list[str] = []
        known = 0
        for name in SPOKEN:
            if self.parsed is not None:
                value = getattr(self.parsed, name, None)
            else:
                value = msgspec.json.decode(self.members[name]) if name in self.members else None
            if isinstance(value, list) and value and isinstance(value[0], list | int):  # tokens already
                known += sum(len(item) if isinstance(item, list) else 1 for item in value)
            else:
                texts += texts_of(value)
        described = [self.members[name] for name in DESCRIBED if name in self.members]
        texts += [str(raw, "utf-8", "replace") for raw in described if memoryview(raw)[0] in b"{["]
        return sample(texts, PROMPT_KEPT if self.stream else PROMPT_COUNTED, known)

    def forget_question(self) -> None:
        """Once a stream has begun: it may last for an hour and keeps no more of its prompt than what counts its tokens."""
        kept = {name: self.members[name] for name in (*SPOKEN, *DESCRIBED) if name in self.members}
        if sum(map(len, kept.values())) <= PROMPT_KEPT:  # nothing is done for it that may never be needed
            estimate = sum(max(raw.count(b" ") + 1, len(raw) // 4) for raw in kept.values())
        else:
            self.remembered = self.question()
            estimate = self.remembered.tokens_guessed()
            kept = {}
        self.prompt_estimate = min(estimate, self.possible.prompt)
        self.members, self.parsed, self.raw = kept, None, None


def all_of(pieces: Pieces) -> Iterator[bytes]:
    """The pieces of a stream with the last."""
    if last := (yield from pieces):
        yield last


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a try at a provider went; `detail` is a sentence safe to show, `models` what it offers if it told."""

    result: CheckVerdict
    latency_ms: int
    detail: str
    models: tuple[str, ...] = ()


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a model fares at its server, since that was started; times are means, None where it never ran."""

    name: str
    is_ready: bool
    succeeded: int
    failed: int
    queue_ms: float | None
    compute_ms: float | None


class TensorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of a model, and what it is recognised as ("" for nothing)."""

    direction: Literal["input", "output"]
    name: str
    type: str
    shape: str
    meaning: str


class Recognised(msgspec.Struct, frozen=True, kw_only=True):
    """What can be told of a model's tensors; `troubles` says by capability why it can't be used so."""

    rows: tuple[TensorRow, ...]
    usable: tuple[Capability, ...]
    troubles: dict[str, str]


class Exchange(ABC):
    """One attempt that the upstream has accepted: its head came and was good."""

    speaks: str  # the dialect of `body` and `events`
    media_type: str | None = None  # of an answer that is neither JSON nor events; one that is cut can't say so
    finish_reason: str | None = None
    kept_as: str | None = None  # the id by which the upstream keeps the answer, for requests that go on from it

    @property
    @abstractmethod
    def usage(self) -> Usage:
        """What the attempt has used so far; `conclude` says it for good."""

    def receive(self) -> None:  # noqa: B027 - there is nothing to wait for where the answer is made here
        """Wait until the whole answer has come. Raises `UpstreamError`."""

    @abstractmethod
    def body(self) -> bytes:
        """The whole answer in the dialect that the upstream speaks, once it has come.

        It may wait for tokens to be counted, and no client that leaves meanwhile ends that: what came is billed. Raises
        `UpstreamError`.
        """

    @abstractmethod
    def events(self) -> Pieces:
        """The stream as complete server-sent events in the dialect that the upstream speaks, as they come, without what
        ends it (`[DONE]`); after the first of them the question is forgotten (`UpstreamRequest.forget_question`).

        Returns when the upstream has ended its stream properly, with the last event where that tells clients the end;
        raises `UpstreamError` when it was cut.
        """

    def reply(self) -> Reply:
        """The whole answer in the neutral language; like `body`."""
        raise NotImplementedError(f"{self.speaks} is not translated")

    def neutral_events(self) -> Iterator[Event]:
        """The stream in the neutral language; like `events`."""
        raise NotImplementedError(f"{self.speaks} is not translated")

    def conclude(self) -> Usage:
        """What the attempt used, for good, however it ended. It may wait for tokens to be counted."""
        return self.usage

    @abstractmethod
    def close(self) -> None:
        """Give back what the exchange holds; its connection is kept alive if the answer was read to its end."""


class Adapter(ABC):
    """One provider of a kind, made once a process and whenever its settings change."""

    title: ClassVar[str]
    Settings: ClassVar[type[Settings]]
    DeploymentSettings: ClassVar[type[msgspec.Struct] | None] = (
        None  # of `Deployment.settings`; None: nobody reads them
    )
    abilities: ClassVar[frozenset[Capability]]

    def __init__(self, settings: Any, *, policy: AddressPolicy) -> None:
        self.settings = settings
        self._policy = policy

    def dial(self, setting: str | None = None) -> Dial:
        """The only way to an upstream, for every transport: to the address in `setting`, or in the only one there is."""
        schemes = schemes_of(self.Settings)
        if setting is None:
            (setting,) = schemes
        address = getattr(self.settings, setting)
        return Dial(address, schemes=schemes[setting], deadlines=self.settings.deadlines, policy=self._policy)

    def speaks(self, dialect: str) -> bool:
        """Whether what a client says in this dialect goes up as it came."""
        return False

    @abstractmethod
    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        """Send the request and wait for the head of the answer. Raises `UpstreamError`."""

    @abstractmethod
    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        """Tell apart: cannot connect, refused credentials, model not there, a bad answer, all well."""

    def list_models(self) -> tuple[ListedModel, ...] | None:
        """The models that the upstream lists, None when it has no list. It costs nothing. Raises `UpstreamError`."""
        return None

    def reports(self) -> tuple[ModelReport, ...] | None:
        """How the server's models fare, None where it does not tell. Raises `UpstreamError`."""
        return None

    def count_tokens(self, request: UpstreamRequest, deployment: Deployment) -> int | None:
        """The tokens of the prompt as the upstream counts them, at no cost; None if it does not. Raises `UpstreamError`."""
        return None

    def recognise(self, model: str, settings: dict[str, Any]) -> Recognised | None:
        """What a model's tensors are recognised as with these settings of a deployment, None where a kind has no tensors.
        Raises `UpstreamError`."""
        return None

    def close(self) -> None:  # noqa: B027 - most adapters hold nothing
        """Give back pooled connections."""
