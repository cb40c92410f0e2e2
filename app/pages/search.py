"""Search over everything that a person can see, for the portal and the API.

Each kind is asked by the search of its own noun, which is the permission, in one limited query. Requests are found by
their whole id only, so that the ledger's size does not matter. An id finds exactly what has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import quote

import msgspec
from sqlalchemy import ColumnElement, Select, case, func

from app.domain import catalog, identity, keys, prompts, providers, subscriptions, teams
from app.domain.catalog import Model
from app.domain.errors import Invalid
from app.domain.keys import ApiKey, KeySecret
from app.domain.person import ROLE_NAMES, Person
from app.domain.prompts import Prompt
from app.domain.providers import Provider
from app.domain.subscriptions import Subscription
from app.domain.teams import Team
from app.extensions import db
from app.pages import menu
from app.pages.usage import reader_of
from app.reports import requests
from app.workflows import catalog_changes
from app.workflows.catalog_changes import CatalogFilter

Kind = Literal["model", "key", "person", "team", "provider", "request", "subscription", "prompt", "page"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TITLES: dict[Kind, str] = {  # of the kinds in the portal
    "model": "Models",
    "key": "API keys",
    "person": "People",
    "team": "Teams",
    "provider": "Providers",
    "request": "Requests",
    "subscription": "Subscriptions",
    "prompt": "Prompts",
    "page": "Pages",
}
FOR_ADMINS = ("person", "provider")
SHORTEST, LONGEST, MOST = 2, 200, 50  # characters of a text; hits
LAST = 4  # characters of a key's secret that it is known by

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_EXACT, _BEGINS, _CONTAINS, _ELSEWHERE = range(4)  # how well a title matches


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was found. `url` is the path of its page in the portal."""

    kind: Kind
    id: str
    title: str
    detail: str
    url: str


class Ranked(NamedTuple):
    """A hit and how well it matches: less is better."""

    rank: int
    hit: Hit


class Search(NamedTuple):
    """One search: who asks for what, and how many hits of a kind at most. With `everything` people, providers and the
    admins' pages are searched too; with `by_id` only ids are compared."""

    person: Person
    text: str
    limit: int
    everything: bool
    by_id: bool = False


def find(person: Person, text: str, *, everything: bool, kind: Kind | None = None, limit: int = 20) -> list[Hit]:
    """Returns at most `limit` things that match `text` and that the person can see, best first.

    Equal titles come before titles that begin with the text, then titles that contain it, then other matches. Among equal
    matches the kinds take turns, so that many keys do not hide one team. Raises `Invalid` naming `q` for a text of less
    than two characters.
    """
    text = text.strip()
    if not SHORTEST <= len(text) <= LONGEST or "\0" in text:
        raise Invalid(f"Enter {SHORTEST} to {LONGEST} characters.", "q")
    search = Search(person, text, limit, everything and person.sees_everything)
    finders = [finder for name, finder in _FINDERS.items() if kind in (None, name)]
    by_id = _best(finders, search._replace(text=text.lower(), by_id=True)) if _ID.fullmatch(text) else []
    return by_id or _best(finders, search)


def _best(finders: Iterable[Callable[[Search], Iterable[Ranked]]], search: Search) -> list[Hit]:
    found = []
    for order, finder in enumerate(finders):
        turns: dict[int, int] = {}
        for rank, hit in finder(search):
            turns[rank] = turns.get(rank, 0) + 1
            found.append(((rank, turns[rank], order), hit))
    found.sort(key=lambda one: one[0])
    return [hit for _, hit in found[: search.limit]]


def kinds_for(person: Person) -> dict[Kind, str]:
    """The kinds that this person can find, with their titles."""
    return {kind: title for kind, title in TITLES.items() if person.sees_everything or kind not in FOR_ADMINS}


def by_kind(hits: Iterable[Hit]) -> dict[Kind, list[Hit]]:
    """The hits of each kind, the kind of the best hit first."""
    groups: dict[Kind, list[Hit]] = {}
    for hit in hits:
        groups.setdefault(hit.kind, []).append(hit)
    return groups


def _models(search: Search) -> Iterable[Ranked]:
    if search.person.sees_everything:
        query, by_id = catalog.all_models(search=search.text), catalog.all_models()
    else:
        query = catalog_changes.find(search.person, CatalogFilter(search=search.text))
        by_id = catalog_changes.find(search.person, CatalogFilter())
    for rank, model in _rows(search, query, by_id, Model.name, Model.display_name):
        detail = model.display_name if model.display_name != model.name else model.description
        yield Ranked(rank, _hit("model", model.id, model.name, detail, f"/models/{quote(model.name)}"))


def _keys(search: Search) -> Iterable[Ranked]:
    visible = keys.visible_to(search.person)
    ending = ApiKey.secrets.any(KeySecret.last4 == search.text) if len(search.text) == LAST else None
    for rank, key in _rows(search, keys.filtered(visible, search=search.text), visible, ApiKey.name, exact=ending):
        owner = key.team.name if key.team else "" if key.person_id == search.person.id else key.person.username
        detail = ", ".join(word for word in (f"{key.prefix}…{key.last4}", owner, key.status) if word)
        yield Ranked(rank, _hit("key", key.id, key.name, detail, f"/keys/{key.id}"))


def _people(search: Search) -> Iterable[Ranked]:
    if not search.everything:
        return
    query = identity.people(search=search.text)
    for rank, person in _rows(search, query, identity.people(), Person.username, Person.email):
        detail = ", ".join(word for word in (person.email, ROLE_NAMES[person.role]) if word)
        yield Ranked(rank, _hit("person", person.id, person.username, detail, f"/admin/people/{person.username}"))


def _teams(search: Search) -> Iterable[Ranked]:
    query = teams.search(search.person, search=search.text)
    for rank, team in _rows(search, query, teams.visible_to(search.person), Team.name):
        yield Ranked(rank, _hit("team", team.id, team.name, team.description, f"/teams/{team.id}"))


def _providers(search: Search) -> Iterable[Ranked]:
    if not search.everything:
        return
    query = providers.search(search=search.text)
    for rank, provider in _rows(search, query, providers.search(), Provider.name):
        detail = f"{provider.kind}, {provider.status}"
        yield Ranked(rank, _hit("provider", provider.id, provider.name, detail, f"/admin/providers/{provider.id}"))


def _requests(search: Search) -> Iterable[Ranked]:
    """The one request with this id."""
    if not search.by_id:
        return
    id = search.text
    for entry in requests.entries_of(reader_of(search.person), id)[:1]:
        detail = ", ".join(filter(None, (entry.model, entry.outcome)))
        yield Ranked(_EXACT, _hit("request", id, id, detail, f"/activity/{id}"))


def _subscriptions(search: Search) -> Iterable[Ranked]:
    visible = subscriptions.visible_to(search.person)
    query = visible.where(Subscription.model_name.icontains(search.text, autoescape=True))
    for rank, one in _rows(search, query, visible, Subscription.model_name):
        detail = f"{one.team.name if one.team else one.person.username}, {one.status}"
        yield Ranked(rank, _hit("subscription", one.id, one.model_name, detail, f"/subscriptions/{one.id}"))


def _prompts(search: Search) -> Iterable[Ranked]:
    query = prompts.search(search.person, search.text)
    for rank, one in _rows(search, query, prompts.visible_to(search.person), Prompt.name):
        yield Ranked(rank, _hit("prompt", one.id, one.name, one.description or "", f"/prompts/{one.id}"))


def _pages(search: Search) -> Iterable[Ranked]:
    text = search.text.casefold()
    for page in () if search.by_id else menu.pages(search.person):
        if (search.everything or not page.href.startswith("/admin/")) and text in page.label.casefold():
            label = page.label.casefold()
            rank = _EXACT if label == text else _BEGINS if label.startswith(text) else _CONTAINS
            yield Ranked(rank, _hit("page", page.href, page.label, page.group, page.href))


_FINDERS: dict[str, Callable[[Search], Iterable[Ranked]]] = {
    "model": _models,
    "key": _keys,
    "person": _people,
    "team": _teams,
    "provider": _providers,
    "request": _requests,
    "subscription": _subscriptions,
    "prompt": _prompts,
    "page": _pages,
}


def _rows(
    search: Search, query: Select[Any], by_id: Select[Any], *names: Any, exact: ColumnElement[bool] | None = None
) -> list[tuple[int, Any]]:
    """The best rows of `query`, each with its rank; in a search by id the row of `by_id` that has it.

    `names` are the columns that it is called by, of which the first is its title; `exact` is another way to match exactly.
    """
    table = query.column_descriptions[0]["entity"]
    if search.by_id:
        return [(_EXACT, row) for row in db.session.scalars(by_id.where(table.id == search.text)).unique()]
    text = search.text.lower()
    equal = [func.lower(name) == text for name in names]
    title = func.lower(names[0])
    ways = [(way, _EXACT) for way in (*equal, *([] if exact is None else [exact]))]
    ways += [(title.startswith(text, autoescape=True), _BEGINS), (title.contains(text, autoescape=True), _CONTAINS)]
    rank = case(*ways, else_=_ELSEWHERE).label("rank")
    own = query._order_by_clauses
    ranked = query.add_columns(rank).order_by(None).order_by(rank, *own).limit(search.limit)
    return [(rank, row) for row, rank in db.session.execute(ranked).unique()]


def _hit(kind: Kind, id: str, title: str, detail: str, url: str) -> Hit:
    return Hit(kind=kind, id=id, title=title, detail=" ".join(detail.split())[:LONGEST], url=url)
