"""The noticeboard: what the cold side publishes so that a call can be served without SQL.

Cold tells hot which models, deployments, prices, providers and callers exist; upstream credentials travel as
ciphertext only. The document is small, whole and versioned; callers are records of their own, one a key.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app import clock

Capability = Literal["chat", "completions", "embeddings", "transcription", "translation", "speech", "images"]
ModelStatus = Literal["active", "hidden", "deprecated", "disabled"]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something on the noticeboard."""


class Price(Record, frozen=True):
    """Nano-units of the deployment's currency. Token prices are per million tokens; None means not priced."""

    id: str
    input_per_mtok: int | None = None
    output_per_mtok: int | None = None
    cached_input_per_mtok: int | None = None
    per_image: int | None = None
    per_audio_minute: int | None = None
    per_request: int | None = None


class DatedPrice(Record, frozen=True):
    """A price and the instant it holds from, in Unix milliseconds."""

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
    """What people subscribe to and applications name."""

    id: str
    name: str
    capabilities: tuple[Capability, ...]
    created: int  # Unix seconds
    status: ModelStatus = "active"
    features: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    default_output_tokens: int | None = None
    image_tokens: int | None = None  # the most tokens that a picture of a prompt can be; None: the gateway's own bound
    audio_tokens: int | None = None
    prices: tuple[DatedPrice, ...] = ()  # oldest first
    deployments: tuple[Deployment, ...] = ()

    def price_at(self, now_ms: int) -> Price | None:
        """The price in force at `now_ms`, or None for a model that has none yet."""
        held = None
        for dated in self.prices:
            if dated.from_ms <= now_ms:
                held = dated.price
        return held


class Provider(Record, frozen=True):
    """An upstream: its adapter's kind, its open settings, and its secrets as ciphertext."""

    id: str
    name: str
    kind: str
    active: bool = True
    settings: dict[str, Any] = {}
    sealed: str | None = None  # `sealing.seal` of the JSON object of secret settings


class Endpoint(Record, frozen=True):
    """A /v1 path's switch and, when not empty, the only providers it may use."""

    path: str
    active: bool = True
    providers: tuple[str, ...] = ()


class Directory(Record, frozen=True):
    """Everything the hot side must know but the callers; published whole, a new version at each change."""

    version: str
    models: tuple[Model, ...] = ()
    providers: tuple[Provider, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


class CallerRecord(Record, frozen=True):
    """Who stands behind a bearer text, published under its digest; a missing record means no such caller.

    `models` maps each model's name that may be called to the subscription that pays for it: the owner's active
    subscriptions, narrowed to the key's own list; `ends_ms` has the instants at which some of them end. Ask `may_call`
    and `callable_models`, which know the time. Limits are not here: they are the scopes' own (see `Scope`).
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
    secret_id: str | None = None  # which of the key's secrets this record is published for

    def may_call(self, model: str) -> bool:
        """Whether a subscription pays for calls of a model at this moment."""
        if model not in self.models:
            return False
        ends_ms = self.ends_ms.get(model)
        return ends_ms is None or clock.now_ms() < ends_ms

    def callable_models(self) -> list[str]:
        """The names of the models that may be called at this moment, sorted."""
        return sorted(name for name in self.models if self.may_call(name))


ScopeKind = Literal["key", "subscription", "user", "member", "team", "organisation"]
Period = Literal["day", "week", "month", "total"]


class Scope(Record, frozen=True):
    """The limits of one scope, read inside the reserve itself, so that a change acts at once.

    Absent limits mean none. `timezone` is an IANA name. A member's id is `<team id>:<person id>`, the
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
