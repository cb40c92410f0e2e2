"""Search over models, keys, people, teams, providers, requests, subscriptions and the portal's pages."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from app.blueprints.api.contract import caller, route
from app.pages import search
from app.pages.search import LONGEST, MOST, SHORTEST, Hit, Kind


class Query(msgspec.Struct, kw_only=True):
    """Requests are found by their id only, keys also by the last four characters of their secret."""

    q: Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)] = ""
    kind: Kind | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 20


class Hits(msgspec.Struct, kw_only=True):
    """What was found, best first."""

    q: str
    data: list[Hit]


@route("GET", "/api/search", query=Query, answer=Hits)
def index(query: Query) -> Hits:
    """Finds what you can see by a part of its name, or by its id. People and providers need the scope admin."""
    requester = caller()
    everything = "admin" in requester.scopes
    found = search.find(requester.person, query.q, everything=everything, kind=query.kind, limit=query.limit)
    return Hits(q=query.q, data=found)
