"""Endpoints: one per /v1 path, with its switch and the providers it may use."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route
from app.domain import providers, throttles
from app.workflows import route_preview
from app.workflows.route_preview import RoutePreview


class Mapping(Body, kw_only=True):
    """An empty list allows every provider."""

    providers: list[Annotated[str, Meta(max_length=36)]] = []


class Endpoint(msgspec.Struct, kw_only=True):
    id: str
    path: str
    active: bool
    mapping: Mapping
    created_at: datetime
    updated_at: datetime


class EndpointPage(CursorPage, kw_only=True):
    data: list[Endpoint]


class EndpointTrial(Body, kw_only=True):
    """A request as a client would send it to the path. Only `model`, `provider` and `fallback_providers` matter."""

    request: dict[str, Any]


class EndpointChange(Body, kw_only=True):
    active: bool | UnsetType = UNSET
    mapping: Mapping | UnsetType = UNSET


class Query(Cursored, kw_only=True):
    status: Literal["active", "inactive"] | None = None


def show(item: providers.Endpoint) -> Endpoint:
    return Endpoint(
        id=item.id,
        path=item.path,
        active=item.active,
        mapping=Mapping(providers=list(item.providers)),
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


@route("GET", "/api/endpoints", scope="admin", query=Query, answer=EndpointPage)
def index(query: Query) -> dict[str, Any]:
    """Lists every path of /v1 that is served."""
    return page(providers.all_endpoints(status=query.status), show)


@route("GET", "/api/endpoints/<id>", scope="admin", answer=Endpoint)
def detail(id: str) -> Endpoint:
    """Returns one path of /v1."""
    return show(providers.endpoint(id))


@route("PUT", "/api/endpoints/<id>", scope="admin", answer=Endpoint, body=EndpointChange, writes=True)
def change(id: str, body: EndpointChange) -> Endpoint:
    """Switches a path on or off, or limits its providers."""
    provider_ids = UNSET if body.mapping is UNSET else body.mapping.providers
    return show(providers.update_endpoint(providers.endpoint(id), by=me(), active=body.active, providers=provider_ids))


@route("POST", "/api/endpoints/<id>/test", scope="admin", answer=RoutePreview, body=EndpointTrial, throttled=True)
def test(id: str, body: EndpointTrial) -> RoutePreview:
    """A dry run: shows which deployment would serve this request, and why. Nothing is sent."""
    throttles.count("test", me().id, throttles.A_PERSON)
    return route_preview.preview(providers.endpoint(id), body.request)
