"""Connect: the settings of each client, filled in with a key's name and a model, and whether a key's first call has arrived."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import me, route
from app.blueprints.api.usage import instant, reader
from app.domain import catalog, keys
from app.domain.errors import Invalid
from app.pages import connect
from app.pages.clients import BY_ID, CLIENTS, Client
from app.pages.snippets import base_url
from app.reports import first_calls

KeyId = Annotated[str, Meta(max_length=36)] | None


class ClientBlock(msgspec.Struct, kw_only=True):
    """What a client is configured with: a `file` at `path`, lines for the `env`ironment, or `code` to run. `text` reads the
    key's secret from the environment variable PORTICO_API_KEY; it is empty for a model that the client can't use."""

    id: str
    title: str
    kind: Literal["file", "env", "code"]
    path: str | UnsetType = UNSET
    text: str


class Connect(msgspec.Struct, kw_only=True):
    """The address of /v1, and each client's block."""

    base_url: str
    clients: list[ClientBlock]


class FirstCall(msgspec.Struct, kw_only=True):
    """`ok`: the first call that a model answered; `failed`: none was answered yet, and `reason` is what the last one was told."""

    state: Literal["waiting", "ok", "failed"]
    request_id: str | None
    at: datetime | None
    reason: str | None


class Query(msgspec.Struct, kw_only=True):
    """Without `model`, each client gets the first model that suits it and that the key can call."""

    key_id: KeyId = None
    model: Annotated[str, Meta(max_length=200)] | None = None


class FirstCallQuery(msgspec.Struct, kw_only=True):
    """`key_id` is needed. `client` narrows the answer to calls of one client, as its `User-Agent` tells."""

    key_id: KeyId = None
    client: Annotated[str, Meta(max_length=20)] | None = None


@route("GET", "/api/connect", query=Query, answer=Connect)
def show(query: Query) -> Connect:
    """Returns the settings of each client, as the Connect page shows them."""
    key = keys.get_visible(me(), query.key_id) if query.key_id else None
    connection = connect.connection(me(), key, query.model)
    if connection.unknown:
        wanted = None if key else catalog.find_model(connection.unknown)
        if wanted is None or wanted.status not in catalog.OFFERED:
            raise Invalid("Choose a model that the key can call, or without a key one of the catalogue.", "model")
        connection = connection._replace(wanted=wanted)
    return Connect(base_url=base_url(), clients=[_block(client, connection) for client in CLIENTS])


def _block(client: Client, connection: connect.Connection) -> ClientBlock:
    panes = client.panes(connection.setup(client))
    return ClientBlock(
        id=client.id,
        title=client.title,
        kind=client.kind,
        path=client.path or UNSET,
        text=panes[0].code if panes else "",
    )


@route("GET", "/api/connect/first-call", query=FirstCallQuery, answer=FirstCall)
def first_call(query: FirstCallQuery) -> FirstCall:
    """Returns whether a key's first call has arrived, a second or two after it did."""
    if query.key_id is None:
        raise Invalid("Name the key.", "key_id")
    key = keys.get_visible(me(), query.key_id)
    if query.client is not None and query.client not in BY_ID:
        raise Invalid(f"Choose one of {', '.join(BY_ID)}.", "client")
    among = BY_ID[query.client].agents if query.client else None
    first = first_calls.progress(reader(of_teams=True), key.id, among).first
    return FirstCall(
        state=first.state,
        request_id=first.request_id,
        at=None if first.at_ms is None else instant(first.at_ms),
        reason=first.reason,
    )
