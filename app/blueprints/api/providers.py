"""Providers: the upstreams, their settings with masked secrets, and a test of one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import (
    Body,
    Cursored,
    CursorPage,
    Page,
    Paged,
    listed,
    me,
    page,
    route,
    sent_members,
    with_fields,
)
from app.clock import from_ms
from app.domain import catalog, fields, providers, throttles
from app.domain.providers import ProviderFields
from app.extensions import db
from app.workflows import model_lists, offboarding, provider_health
from app.workflows.provider_health import StateOfHealth

Kind = Annotated[str, Meta(max_length=32)]


class IdentifiedProvider(msgspec.Struct, kw_only=True):
    """A provider has an id, and what is declared of every provider."""

    id: str


if TYPE_CHECKING:
    DeclaredProvider = IdentifiedProvider
    NewProviderBody = Body
    ProviderBody = Body
else:
    DeclaredProvider = with_fields(IdentifiedProvider, ProviderFields)
    NewProviderBody = with_fields(Body, ProviderFields, absent=UNSET, required=("name",))
    ProviderBody = with_fields(Body, ProviderFields, absent=UNSET)


class Provider(DeclaredProvider, kw_only=True):
    """`provider` is the kind of adapter. Secrets in `config` are masked. `health` is what listing its models and its
    traffic tell of it."""

    provider: str
    config: dict[str, Any]
    health: StateOfHealth
    created_at: datetime
    updated_at: datetime


class ProviderPage(CursorPage, kw_only=True):
    data: list[Provider]


class NewProvider(NewProviderBody, kw_only=True):
    provider: Kind
    config: dict[str, Any] = {}


class ProviderChange(ProviderBody, kw_only=True):
    """What you leave out stays unchanged. A `config` replaces the other settings and keeps secrets that are masked or
    missing."""

    provider: Kind | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET


class Trial(Body, kw_only=True):
    prompt: Annotated[str, Meta(max_length=10_000)] | None = None
    model: Annotated[str, Meta(max_length=200)] | None = None
    parameters: dict[str, Any] = {}


class TrialResult(msgspec.Struct, kw_only=True):
    result: str
    latency_ms: int
    detail: str
    models: list[str]


class Query(Cursored, kw_only=True):
    type: Literal["api", "web"] | None = None
    status: Literal["active", "disabled", "inactive"] | None = None


class OfferedModel(msgspec.Struct, kw_only=True):
    """A model by its name at the provider; what the provider does not tell is null. `models` are the portal's models
    that it serves."""

    id: str
    context_window: int | None
    max_output_tokens: int | None
    models: list[str]


class OfferedModelPage(Page, kw_only=True):
    """The models as of `listed_at`. If the last try at `asked_at` failed, `reason` says why, and they may be older.
    `has_list` is false for a provider that has no list of models."""

    data: list[OfferedModel]
    asked_at: datetime
    listed_at: datetime | None
    reason: str | None
    has_list: bool


class ModelListQuery(Paged, kw_only=True):
    """With `refresh`, the provider is asked again, although its list is known."""

    refresh: Literal["true", "false"] = "false"


def show(item: providers.Provider, health: StateOfHealth | None = None) -> Provider:
    return Provider(
        id=item.id,
        **fields.told(ProviderFields, item),
        provider=item.kind,
        config=item.config,
        health=health or provider_health.by_provider([item])[item.id],
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


@route("GET", "/api/providers", scope="admin", query=Query, answer=ProviderPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the providers by name. The status `inactive` means `disabled`."""
    status = "disabled" if query.status == "inactive" else query.status
    found = page(providers.search(type=query.type, status=status), lambda item: item)
    health = provider_health.by_provider(found["data"])
    return found | {"data": [show(item, health[item.id]) for item in found["data"]]}


@route("POST", "/api/providers", scope="admin", answer=Provider, status=201, body=NewProvider, writes=True)
def create(body: NewProvider) -> Provider:
    """Creates a provider."""
    return show(providers.create(by=me(), kind=body.provider, **sent_members(body, "provider")))


@route("GET", "/api/providers/<id>", scope="admin", answer=Provider)
def detail(id: str) -> Provider:
    """Returns one provider."""
    return show(providers.get(id))


@route(
    "PUT",
    "/api/providers/<id>",
    scope="admin",
    answer=Provider,
    body=ProviderChange,
    writes=True,
    versioned_by=("updated_at",),  # a secret may change behind the same mask
)
def change(id: str, body: ProviderChange) -> Provider:
    """Changes a provider."""
    changed = providers.update(providers.get(id), by=me(), kind=body.provider, **sent_members(body, "provider"))
    return show(changed)


@route("DELETE", "/api/providers/<id>", scope="admin", status=204, writes=True)
def remove(id: str) -> None:
    """Deletes a provider that no deployment uses."""
    offboarding.withdraw(providers.get(id), by=me())


@route("POST", "/api/providers/<id>/test", scope="admin", answer=TrialResult, body=Trial, throttled=True)
def test(id: str, body: Trial) -> TrialResult:
    """Tests the upstream now: can it be reached, are the credentials valid, does it have the model?"""
    throttles.count("test", me().id, throttles.A_PERSON)
    item = providers.get(id)
    db.session.expunge(item)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    result = providers.check(item, model=body.model, prompt=body.prompt, parameters=body.parameters)
    return TrialResult(
        result=result.result, latency_ms=result.latency_ms, detail=result.detail, models=list(result.models)
    )


@route("GET", "/api/providers/<id>/models", scope="admin", query=ModelListQuery, answer=OfferedModelPage)
def offered(id: str, query: ModelListQuery) -> dict[str, Any]:
    """Lists the models that the provider offers, as it last said. It is asked if that is more than an hour ago; this is
    free."""
    listing = model_lists.of(providers.get(id), anew=query.refresh == "true")
    served = catalog.models_by_upstream(id)
    rows = listed(listing.models)
    return rows | {
        "data": [
            OfferedModel(
                id=one.id,
                context_window=one.context_window,
                max_output_tokens=one.max_output_tokens,
                models=served.get(one.id, []),
            )
            for one in rows["data"]
        ],
        "asked_at": from_ms(listing.at_ms),
        "listed_at": None if listing.listed_at_ms is None else from_ms(listing.listed_at_ms),
        "reason": listing.reason or None,
        "has_list": listing.has_list,
    }
