"""Providers: the upstreams, their settings with masked secrets, and a test of one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route, sent_members, with_fields
from app.domain import fields, providers
from app.domain.providers import ProviderFields
from app.extensions import db
from app.workflows import offboarding

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
    """`provider` is the kind of adapter. Secrets in `config` are masked."""

    provider: str
    config: dict[str, Any]
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


def show(item: providers.Provider) -> Provider:
    return Provider(
        id=item.id,
        **fields.told(ProviderFields, item),
        provider=item.kind,
        config=item.config,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


@route("GET", "/api/providers", scope="admin", query=Query, answer=ProviderPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the providers by name. The status `inactive` means `disabled`."""
    status = "disabled" if query.status == "inactive" else query.status
    return page(providers.search(type=query.type, status=status), show)


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


@route("POST", "/api/providers/<id>/test", scope="admin", answer=TrialResult, body=Trial)
def test(id: str, body: Trial) -> TrialResult:
    """Tests the upstream now: can it be reached, are the credentials valid, does it have the model?"""
    item = providers.get(id)
    db.session.expunge(item)
    db.session.rollback()  # the upstream may be slow; no transaction must stay open meanwhile
    result = providers.check(item, model=body.model, prompt=body.prompt, parameters=body.parameters)
    return TrialResult(
        result=result.result, latency_ms=result.latency_ms, detail=result.detail, models=list(result.models)
    )
