"""What a dialect is: how a client's request is read, and how answers, streams and errors are written to it.

If the upstream speaks the same dialect (`Exchange.speaks`), bytes pass through untouched. If not, both sides meet in
`app.providers.conversation`: the dialect reads the request into a `Conversation` and writes the answer from neutral parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

from app.directory import Model
from app.gateway.errors import ApiError
from app.metering.pricing import TokenBound
from app.providers.base import Exchange, Pieces, UpstreamError, UpstreamRequest
from app.providers.conversation import Conversation
from app.runtime.agents import Agent
from app.runtime.forms import Form
from app.runtime.jsonbody import RawObject

# Some dialects have signatures of thoughts alone. Those of other parts are kept in the thoughts before them, or in thoughts
# that stand for a part without a text; clients give back thoughts as they came.
OF_NEXT, OF_NOTHING = "next:", "here:"


def hidden_signature(signature: str, signed: str) -> str:
    """A signature of what follows, or of nothing, as one of thoughts."""
    return (OF_NEXT if signed else OF_NOTHING) + signature


class Checked(Protocol):
    """The members of a request that the gateway reads, checked."""

    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str | None: ...
    @property
    def fallback_providers(self) -> list[str] | None: ...
    @property
    def stream(self) -> bool | None: ...
    @property
    def include_usage(self) -> bool: ...

    def bound(self, size: int, members: dict[str, bytes], model: Model, priced_apart: str | None) -> TokenBound:
        """The most that this request can use, in tokens. `size` is the body's size in bytes, its escapes read."""
        ...


class Asked(NamedTuple):
    """A request as its dialect reads it.

    `members` are what passes through, as raw JSON by name: neither what steers the gateway nor what limits the answer.
    `priced_apart` names the member that may cost more than tokens, None if there is none.
    """

    checked: Checked
    members: dict[str, bytes]
    size: int
    priced_apart: str | None
    tier: str | None = None  # of service, None for the usual one
    form: Form | None = None  # the request, where it is one, without what steers the gateway
    raw: RawObject | None = None  # the body as it came, if nothing has to be taken out of it


class Dialect(ABC):
    """What a client speaks on one path."""

    name: ClassVar[str]
    end: ClassVar[bytes]  # what follows the last event of a stream that is whole
    id_headers: ClassVar[tuple[str, ...]] = ("x-request-id",)  # where its clients look for the request's id
    headers: ClassVar[tuple[str, ...]] = ()  # of a request, that go on to an upstream of the same dialect
    streams_events: ClassVar[bool] = False  # whatever answers a stream, so that comments may come before it
    answers_as_asked: ClassVar[bool] = (
        False  # an answer bears the name that was asked for, even if the model has another
    )
    no_model: ClassVar[int] = 404  # the status for a model that is not there or not allowed
    budget_stop: ClassVar[int | None] = None  # the status for a spent budget; None for `gateway.budget_stop_status`

    @abstractmethod
    def read(self, body: Any) -> Asked:
        """The request in a body: bytes, or a `Form` where the endpoint takes one. Raises `ApiError` 400."""

    def suited(self, asked: Asked, model: Model) -> Asked:
        """The request as this model wants it. Raises `ApiError` 400."""
        return asked

    @abstractmethod
    def error(self, error: ApiError, request_id: str) -> bytes:
        """A refusal, JSON."""

    @abstractmethod
    def cut(
        self, message: str, error: UpstreamError | ApiError | None = None, sent: tuple[bytes, bytes] = (b"", b"")
    ) -> bytes:
        """What ends a stream that failed after its first byte. `error` is the upstream's, or what came of it, if it is
        that; `sent` are the first and the last piece of the answer that the client was sent."""

    def refusal_stream(self, error: ApiError, model: str, agent: Agent | None) -> bytes | None:
        """A refusal as a stream of its own, where a client that asked for one reads it only there (`agent` says which client it
        is); None where its status and body say it."""
        return None

    def conversation_after(self, kept_as: str) -> str:
        """What tells the requests that go on from an answer, see `Exchange.kept_as`, from all others."""
        return f"answer {kept_as}"

    def kept_upstream(self, request: UpstreamRequest) -> str | None:
        """The member that names an answer of the past which only the upstream has that gave it; None where there is none."""
        return None

    def conversation_id(self, request: UpstreamRequest, session: str) -> str:
        """What tells the requests of one conversation from all others, "" where there is nothing. `session` is what the
        client's headers say, "" if they say nothing."""
        return session

    def is_bound(self, request: UpstreamRequest) -> bool:
        """Whether a request holds what only the provider understands that served its conversation before, such as signatures
        of its thoughts."""
        return False

    def leave_home(self, request: UpstreamRequest) -> None:  # noqa: B027 - most have nothing of the kind
        """Take that out: another provider is asked now."""

    def conversation(self, request: UpstreamRequest) -> Conversation:
        """The request in the neutral language. Raises `ApiError` 400 for what can't be said in it."""
        raise NotImplementedError(f"{self.name} is not translated")

    def answer(self, request: UpstreamRequest, exchange: Exchange) -> bytes:
        """A whole answer, from `exchange.reply()`. Raises what that raises."""
        raise NotImplementedError(f"{self.name} is not translated")

    def events(self, request: UpstreamRequest, exchange: Exchange) -> Pieces:
        """A stream's events, each complete, from `exchange.neutral_events()`, without `end`; like `Exchange.events`."""
        raise NotImplementedError(f"{self.name} is not translated")
