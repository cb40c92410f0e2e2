"""Payers: the scopes that calls are charged to, as people speak of them, and who has which part in their budgets.

A scope is only a kind and an id to the meter; here it gets a name, an address, those whom it concerns and those who
may ask for more. It stands above the nouns that scopes are made of, so that none of them has to know the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import exists, select, tuple_
from sqlalchemy.orm import aliased

from app import store
from app.domain import budgets, catalog, identity, keys, subscriptions, teams
from app.domain.errors import NotFound
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.subscriptions import Subscription
from app.domain.teams import Membership, Team
from app.extensions import db, now
from app.metering import money

Scope = tuple[str, str]  # kind, id

SHORTEST_ANSWER, SHORTEST_PROMPT = 16, 17  # tokens of the smallest call that the meter lets in


class Payer(NamedTuple):
    """A scope with its name in words, such as "key nightly", and the id that addresses show."""

    kind: str
    id: str
    name: str
    shown: str
    team_id: str | None = None  # the team that it belongs to, or is
    person_id: str | None = None  # the one person whose it is, in a team or not

    @property
    def scope(self) -> Scope:
        return self.kind, self.id

    @property
    def path(self) -> str:
        """The page of its budget."""
        return f"/budgets/{self.kind}/{self.shown}"


def read(scopes: Iterable[Scope]) -> dict[Scope, Payer]:
    """What these scopes are, in one query a kind; those that are gone are left out."""
    ids: dict[str, set[str]] = {kind: set() for kind in budgets.KINDS}
    for kind, id in scopes:
        ids.setdefault(kind, set()).add(id)
    found: dict[Scope, Payer] = {}
    for key_id, name, team_id, person_id in _chunked(
        ids["key"],
        lambda some: select(ApiKey.id, ApiKey.name, ApiKey.team_id, ApiKey.person_id).where(ApiKey.id.in_(some)),
    ):
        found["key", key_id] = Payer("key", key_id, f"key {name}", key_id, team_id, person_id)
    subscribed = Subscription.id, Subscription.model_name, Subscription.team_id, Subscription.person_id
    people = ids["user"] | {id.partition(":")[2] for id in ids["member"]}
    joined = ids["team"] | {id.partition(":")[0] for id in ids["member"]}
    rows = list(_chunked(ids["subscription"], lambda some: select(*subscribed).where(Subscription.id.in_(some))))
    names = dict(
        _chunked(
            people | {row[3] for row in rows},
            lambda some: select(Person.id, Person.username).where(Person.id.in_(some)),
        )
    )
    team_names = dict(
        _chunked(
            joined | {row[2] for row in rows if row[2]},
            lambda some: select(Team.id, Team.name).where(Team.id.in_(some)),
        )
    )
    for id, model, team_id, person_id in rows:
        owner = f"team {team_names.get(team_id, team_id)}" if team_id else names.get(person_id, person_id)
        found["subscription", id] = Payer(
            "subscription", id, f"subscription of {owner} to {model}", id, team_id, None if team_id else person_id
        )
    for id in ids["user"] & names.keys():
        found["user", id] = Payer("user", id, names[id], names[id], None, id)
    for id in ids["team"] & team_names.keys():
        found["team", id] = Payer("team", id, f"team {team_names[id]}", id, id)
    for id in ids["member"]:
        team_id, _, person_id = id.partition(":")
        if team_id in team_names and person_id in names:
            name = f"{names[person_id]} in team {team_names[team_id]}"
            found["member", id] = Payer("member", id, name, f"{team_id}:{names[person_id]}", team_id, person_id)
    if store.ORGANISATION in ids["organisation"]:
        found["organisation", store.ORGANISATION] = _organisation()
    return found


def named(kind: str, text: str) -> Payer:
    """The payer of an address: people are named by their usernames or ids. Raises `NotFound`."""
    id = text
    if kind in ("user", "member"):
        team_id, colon, who = text.rpartition(":")
        person = identity.find(who) or identity.by_id(who)
        id = f"{team_id}{colon}{person.id}" if person and bool(colon) == (kind == "member") else ""
    found = read([(kind, id)]).get((kind, id)) if kind in budgets.KINDS else None
    if found is None or (kind == "member" and db.session.get(Membership, tuple(id.split(":"))) is None):
        raise NotFound("There is no such budget.")
    return found


def reach(person: Person, kind: str, text: str) -> Payer:
    """The same among those that a person may see: what they are charged to, the caps in their teams, what belongs to
    teams they own, and for admins everything. Raises `NotFound`."""
    found = named(kind, text)
    joined = found.kind == "member" and found.team_id is not None and teams.role_in(person, found.team_id)
    if not (person.sees_everything or charges(person, found) or joined or _owns_team(person, found)):
        raise NotFound("There is no such budget.")
    return found


def charges(person: Person, payer: Payer) -> bool:
    """Whether calls of this person may be charged to it: that is who may ask for more."""
    if payer.kind == "organisation":
        return True
    if payer.person_id is not None:
        return payer.person_id == person.id
    return payer.team_id is not None and teams.role_in(person, payer.team_id) is not None


def may_decide(person: Person, payer: Payer) -> bool:
    """Whether a person answers those who ask for more: admins always, a team's owners for its keys and members."""
    return person.is_admin or (payer.kind in ("key", "member") and _owns_team(person, payer))


def sees_requests(person: Person, payer: Payer) -> bool:
    """Whether a person sees what others asked of it: who decides, and who sees everything."""
    return person.sees_everything or may_decide(person, payer)


def concerned(payer: Payer) -> list[Person]:
    """Whom an alert of its budget is told: the person whose it is, a team's owners, and admins for the organisation."""
    found: list[Person] = []
    if payer.kind == "organisation":
        found += db.session.scalars(select(Person).where(Person.role == "admin").order_by(Person.id))
    if payer.person_id is not None:
        found += db.session.scalars(select(Person).where(Person.id == payer.person_id))
    if payer.team_id is not None:
        team = db.session.get(Team, payer.team_id)
        found += teams.owners_of(team) if team else ()
    return [person for person in dict.fromkeys(found) if not person.disabled]


def of(person: Person) -> list[Payer]:
    """All that a person's calls may be charged to: themselves, their keys and subscriptions, their teams with their
    own caps there, and the organisation; in this order."""
    scopes: list[Scope] = [("user", person.id)]
    scopes += [
        ("key", id) for id in db.session.scalars(select(ApiKey.id).where(ApiKey.person_id == person.id, keys.live()))
    ]
    mine = teams.of(person)
    joined = [one.team_id for one in mine]
    live = Subscription.status.in_(subscriptions.LIVE)
    own = (Subscription.person_id == person.id) & Subscription.team_id.is_(None)
    scopes += [
        ("subscription", id)
        for id in db.session.scalars(select(Subscription.id).where(live, own | Subscription.team_id.in_(joined)))
    ]
    for one in mine:
        scopes += [("member", one.scope_id), ("team", one.team_id)]
    scopes.append(("organisation", store.ORGANISATION))
    found = read(scopes)
    return [found[scope] for scope in scopes if scope in found]


def below(payer: Payer) -> list[Payer]:
    """Those whose calls this payer pays for too, and who may be cut off by budgets of their own: a team's members and
    keys, a person's keys."""
    live = keys.live()
    scopes: list[Scope] = []
    if payer.kind == "team":
        members = db.session.scalars(select(Membership.person_id).where(Membership.team_id == payer.id))
        scopes += [("member", teams.scope_of(payer.id, person_id)) for person_id in members]
        scopes += [("key", id) for id in db.session.scalars(select(ApiKey.id).where(ApiKey.team_id == payer.id, live))]
    elif payer.kind in ("user", "member"):
        team_id = payer.team_id if payer.kind == "member" else None
        query = select(ApiKey.id).where(ApiKey.person_id == payer.person_id, ApiKey.team_id == team_id, live)
        scopes += [("key", id) for id in db.session.scalars(query)]
    found = read(scopes)
    return [found[scope] for scope in scopes if scope in found]


def smallest_call_nano() -> int:
    """What the cheapest call that costs anything has to fit, in nano-units: a short prompt and a short answer."""
    price, later = catalog.Price, aliased(catalog.Price)
    moment = now()
    superseded = exists().where(
        later.model_id == price.model_id,
        later.from_at <= moment,
        tuple_(later.from_at, later.id) > tuple_(price.from_at, price.id),
    )
    query = (  # columns alone: this is asked for each page of budgets, and a catalogue may be long
        select(price.input_per_mtok, price.output_per_mtok, price.per_request)
        .join(catalog.Model, catalog.Model.id == price.model_id)
        .where(catalog.Model.status.in_(catalog.OFFERED), price.from_at <= moment, ~superseded)
        .distinct()
    )
    costs = [
        money.up(SHORTEST_PROMPT, inputs or 0) + (request or 0) + money.up(SHORTEST_ANSWER, outputs or 0)
        for inputs, outputs, request in db.session.execute(query)
    ]
    return min((cost for cost in costs if cost > 0), default=1)


def _organisation() -> Payer:
    return Payer("organisation", store.ORGANISATION, "the organisation", store.ORGANISATION)


def _owns_team(person: Person, payer: Payer) -> bool:
    return payer.team_id is not None and teams.role_in(person, payer.team_id) == "owner"


def _chunked(ids: Iterable[str], query: Callable[[Sequence[str]], Any]) -> Iterator[Any]:
    """The rows of `query` for all ids, some thousands at a time."""
    wanted: Sequence[str] = sorted(ids)
    for start in range(0, len(wanted), 5_000):
        yield from db.session.execute(query(wanted[start : start + 5_000]))
