"""The directory: what the cold side publishes in Redis so that a call needs no SQL.

It holds models, deployments, prices, providers and endpoints in one small, versioned document; callers are records of
their own, one for each key. Upstream credentials are published as ciphertext only.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app import clock

Capability = Literal["chat", "completions", "embeddings", "transcription", "translation", "speech", "images", "rerank"]
KeyScope = Literal["chat", "embeddings", "audio", "images", "models:read"]
ModelStatus = Literal["active", "hidden", "deprecated", "disabled"]


TEXT = "{text}"  # stands for the text in an instruction


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A published record."""


class LongContext(Record, frozen=True):
    """The rates of requests whose prompt has more tokens than this."""

    above_prompt_tokens: int
    rates: dict[str, int] = {}


class Price(Record, frozen=True):
    """Nano-units of the deployment's currency, by the names of `quantities.PRICES`; what is missing has no price.

    `tiers` are the rates of service tiers, by name.
    """

    id: str
    rates: dict[str, int] = {}
    tiers: dict[str, dict[str, int]] = {}
    long_context: LongContext | None = None


class DatedPrice(Record, frozen=True):
    """A price and the time it is effective from, in Unix ms."""

    from_ms: int
    price: Price


class Deployment(Record, frozen=True):
    """One way to reach a model: a provider and the model's name there. Lower priorities are tried first."""

    id: str
    provider_id: str
    upstream_model: str
    priority: int = 0
    weight: int = 1
    settings: dict[str, Any] = {}


class Model(Record, frozen=True):
    """A model that people subscribe to and applications call by name."""

    id: str
    name: str
    capabilities: tuple[Capability, ...]
    created: int  # Unix seconds
    display_name: str = ""
    status: ModelStatus = "active"
    features: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  # other names by which it can be called
    context_window: int | None = None
    max_output_tokens: int | None = None
    default_output_tokens: int | None = None
    image_tokens: int | None = (
        None  # the most tokens that a picture in a prompt can count; None: the gateway's own bound
    )
    audio_tokens: int | None = None
    query_instruction: str = ""  # what a text of an embedding becomes, `{text}` standing for it; "" for the text itself
    passage_instruction: str = ""
    prices: tuple[DatedPrice, ...] = ()  # oldest first
    deployments: tuple[Deployment, ...] = ()

    def price_at(self, now_ms: int) -> Price | None:
        """The price in force at `now_ms`; None for a model that has no price yet."""
        price = None
        for dated in self.prices:
            if dated.from_ms <= now_ms:
                price = dated.price
        return price


class Provider(Record, frozen=True):
    """An upstream: its adapter's kind, its plain settings, and its secrets as ciphertext."""

    id: str
    name: str
    kind: str
    active: bool = True
    settings: dict[str, Any] = {}
    sealed: str | None = None  # `sealing.seal` of the JSON object of secret settings


class Endpoint(Record, frozen=True):
    """Whether a /v1 path is on and, if `providers` is not empty, the only providers that it may use."""

    path: str
    active: bool = True
    providers: tuple[str, ...] = ()


class Directory(Record, frozen=True):
    """Everything the hot side must know except the callers, published whole with a new version at each change."""

    version: str
    models: tuple[Model, ...] = ()
    providers: tuple[Provider, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    settings: dict[str, Any] = {}  # those that admins have stored, by key ("gateway.default_model")


class PromptOwner(Record, frozen=True):
    """Whose keys can call by a prompt: those of a person, or those of a team."""

    person_id: str | None = None
    team_id: str | None = None


class PromptText(Record, frozen=True):
    """One version of a prompt. `model` is for requests that name none."""

    version: int
    template: str
    model: str | None = None


class PersonalCredential(Record, frozen=True):
    """A person's own credential of a provider, as ciphertext."""

    id: str
    sealed: str  # `sealing.seal` for `place_of_credential`


class CallerRecord(Record, frozen=True):
    """Whose bearer text this is, published under its digest; a missing record means that there is no such caller.

    `models` maps the name of each model that the caller can use to the subscription that pays for it ("" for an admin's test,
    which needs none): the owner's active subscriptions, narrowed to the key's own list. `ends_ms` says when some of them
    expire; `may_call` and `callable_models` take it into account. Limits are not here but in each `Scope`.
    """

    id: str  # the key's id, or the access token's
    kind: Literal["key", "token"]
    name: str
    person_id: str
    username: str
    models: dict[str, str] = {}
    ends_ms: dict[str, int] = {}  # by the model's name, Unix ms
    team_id: str | None = None
    team: str | None = None  # the team's name
    expires_ms: int | None = None
    routing: Literal["free", "fixed"] = "free"
    scopes: tuple[KeyScope, ...] = ()  # what the key may be used for; none means everything
    tags: tuple[str, ...] | None = None  # that its requests may bear; None means any
    secret_id: str | None = None  # which of the key's secrets this record is published for
    credentials: dict[str, PersonalCredential] = {}  # by the provider's id; a team's keys have none

    def may_call(self, model: str) -> bool:
        """Whether a subscription pays for calls of a model now."""
        if model not in self.models:
            return False
        ends_ms = self.ends_ms.get(model)
        return ends_ms is None or clock.now_ms() < ends_ms

    def callable_models(self) -> list[str]:
        """The names of the models that the caller can use now, sorted."""
        return sorted(name for name in self.models if self.may_call(name))


ScopeKind = Literal["key", "subscription", "user", "member", "team", "organisation"]
Period = Literal["day", "week", "month", "total"]


class Scope(Record, frozen=True):
    """The limits of one scope. The reserve script reads them, so that a change acts immediately.

    None means no limit. `timezone` is an IANA name. A member's id is `<team id>:<person id>`, the
    organisation's is `default`, a user's is the person's id.
    """

    kind: ScopeKind
    id: str
    limit_nano: int | None = None
    period: Period = "total"
    timezone: str = "UTC"
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None


def place_of(provider_id: str) -> str:
    """The place that a provider's secrets are sealed for."""
    return f"provider:{provider_id}"


def place_of_credential(id: str, person_id: str, provider_id: str, destination: str) -> str:
    """The place that a person's own credential is sealed for: its row, and where the provider's requests went then
    (`settings.destination_of`). It goes nowhere else."""
    return f"credential:{id}:{person_id}:{provider_id}:{destination}"
