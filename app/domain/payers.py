"""Payers: the scopes that calls are charged to, with a name, an address, and the people with access to their budgets.

To the meter a scope is only a kind and an id. This module is above the nouns that scopes name, so that none of them
imports the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, case, exists, func, literal, null, select, tuple_, union_all
from sqlalchemy.orm import aliased

from app import store
from app.clock import now
from app.domain import budgets, catalog, identity, keys, subscriptions, teams
from app.domain.errors import NotFound
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.prices import Price
from app.domain.search import one_of
from app.domain.subscriptions import Subscription
from app.domain.teams import Membership, Team
from app.extensions import db
from app.metering import money
from app.metering.scopes import member_id, team_and_person

Scope = tuple[str, str]  # kind, id

_OF_TEAM = Subscription.team_id.is_not(None)
# The name of a subscription as SQL, in a query with its owners.
SUBSCRIPTION_NAME: ColumnElement[str] = (
    "subscription of "
    + case((_OF_TEAM, "team " + func.coalesce(Team.name, Subscription.team_id)), else_=Person.username)
    + " to "
    + Subscription.model_name
)

SHORTEST_ANSWER, SHORTEST_PROMPT = 16, 99  # tokens that the smallest call reserves


class Payer(NamedTuple):
    """A scope with its display name, such as "key nightly", and the id that addresses show."""

    kind: str
    id: str
    name: str
    public_id: str
    team_id: str | None = None  # the team that it belongs to, or is
    person_id: str | None = None  # the one person that it belongs to, in a team or not

    @property
    def scope(self) -> Scope:
        return self.kind, self.id

    @property
    def path(self) -> str:
        """The page of its budget."""
        return f"/budgets/{self.kind}/{self.public_id}"


class Held(NamedTuple):
    """A key or subscription of a person."""

    kind: str
    id: str
    name: str  # a key's, or that of the model
    status: str
    created_at: datetime
    expires_at: datetime | None


def read(scopes: Iterable[Scope]) -> dict[Scope, Payer]:
    """The payers of these scopes, by one query; deleted ones are left out."""
    ids: dict[str, set[str]] = {kind: set() for kind in budgets.KINDS}
    for kind, id in scopes:
        ids.setdefault(kind, set()).add(id)
    members = {id: team_and_person("member", id) for id in ids["member"]}
    people = ids["user"] | {str(person_id) for _, person_id in members.values()}
    joined = ids["team"] | {str(team_id) for team_id, _ in members.values()}
    asked = (
        (_keys, ApiKey.id, ids["key"]),
        (_subscriptions, Subscription.id, ids["subscription"]),
        (_people, Person.id, people),
        (_teams, Team.id, joined),
    )
    known = _found(*(piece(one_of(column, wanted)) for piece, column, wanted in asked if wanted))
    found = {scope: known[scope] for scope in known if scope[1] in ids[scope[0]]}
    for id, (team_id, person_id) in members.items():
        team, person = known.get(("team", str(team_id))), known.get(("user", str(person_id)))
        if team and person:
            found["member", id] = _member(team, person)
    if store.ORGANISATION in ids["organisation"]:
        found["organisation", store.ORGANISATION] = _organisation()
    return found


def named(kind: str, text: str) -> Payer:
    """The payer that an address names: people by username or id, others by id. Raises `NotFound`."""
    id = text
    if kind in ("user", "member"):
        team_id, who = team_and_person(kind, text)
        person = identity.find(str(who)) or identity.by_id(str(who))
        id = "" if person is None else member_id(team_id, person.id) if team_id is not None else person.id
    found = read([(kind, id)]).get((kind, id)) if kind in budgets.KINDS else None
    if found is None or (kind == "member" and db.session.get(Membership, team_and_person(kind, id)) is None):
        raise NotFound("This budget does not exist.")
    return found


def get_visible(person: Person, kind: str, text: str) -> Payer:
    """The same among those that a person can see: the ones that pay for their calls, the caps in their teams, those of
    teams they own, and all for admins. Raises `NotFound`."""
    found = named(kind, text)
    joined = found.kind == "member" and found.team_id is not None and teams.role_in(person, found.team_id)
    if not (person.sees_everything or charges(person, found) or joined or _owns_team(person, found)):
        raise NotFound("This budget does not exist.")
    return found


def charges(person: Person, payer: Payer) -> bool:
    """Whether this person's calls can be charged to it. Then they can request an increase."""
    if payer.kind == "organisation":
        return True
    if payer.person_id is not None:
        return payer.person_id == person.id
    return payer.team_id is not None and teams.role_in(person, payer.team_id) is not None


def may_decide(person: Person, payer: Payer) -> bool:
    """Whether a person can decide about increases: admins always, a team's owners for its keys and members."""
    return person.is_admin or (payer.kind in ("key", "member") and _owns_team(person, payer))


def sees_requests(person: Person, payer: Payer) -> bool:
    """Whether a person can see other people's requests: who can decide, and who sees everything."""
    return person.sees_everything or may_decide(person, payer)


def people_to_alert(payer: Payer) -> list[Person]:
    """The people that an alert notifies: the owner, a team's owners, and admins for the organisation."""
    found: list[Person] = []
    if payer.kind == "organisation":
        found += db.session.scalars(select(Person).where(Person.role == "admin").order_by(Person.id))
    if payer.person_id is not None:
        found += db.session.scalars(select(Person).where(Person.id == payer.person_id))
    if payer.team_id is not None:
        team = db.session.get(Team, payer.team_id)
        found += teams.owners_of(team) if team else ()
    return [person for person in dict.fromkeys(found) if not person.disabled]


def paying_for(person: Person) -> list[Payer]:
    """All payers that a person's calls can be charged to, in this order: the person, their keys and subscriptions, their
    teams with their caps there, and the organisation."""
    joined = select(Membership.team_id).where(Membership.person_id == person.id)
    found = _found(
        _keys(ApiKey.person_id == person.id, keys.live()),
        _subscriptions(Subscription.status.in_(subscriptions.LIVE), subscriptions.shared_by(person)),
        _teams(Team.id.in_(joined)),
    ).values()
    own_keys, asked, joined_teams = (
        [one for one in found if one.kind == kind] for kind in ("key", "subscription", "team")
    )
    mine = Payer("user", person.id, person.username, person.username, None, person.id)
    of_teams = [one for team in joined_teams for one in (_member(team, mine), team)]
    return [mine, *own_keys, *asked, *of_teams, _organisation()]


def below(payer: Payer) -> list[Payer]:
    """Payers within this one, which have budgets of their own: a team's members and keys, a person's keys."""
    live = keys.live()
    if payer.kind == "team":
        members = select(Membership.person_id).where(Membership.team_id == payer.id)
        found = _found(_people(Person.id.in_(members)), _keys(ApiKey.team_id == payer.id, live)).values()
        own_keys = [one for one in found if one.kind == "key"]
        return [*(_member(payer, one) for one in found if one.kind == "user"), *own_keys]
    if payer.kind in ("user", "member"):
        team_id = payer.team_id if payer.kind == "member" else None
        return list(_found(_keys(ApiKey.person_id == payer.person_id, ApiKey.team_id == team_id, live)).values())
    return []


def with_owners(query: Select[Any]) -> Select[Any]:
    """Join the person and the team of subscriptions to a query."""
    return query.join(Person, Person.id == Subscription.person_id).outerjoin(Team, Team.id == Subscription.team_id)


def held_by(person: Person) -> list[Held]:
    """A person's own active keys and their own subscriptions, pending ones included, newest first, by one query."""
    wanted = subscriptions.owned_by(person).where(Subscription.status.in_(("active", "pending")))
    columns = Subscription.id, Subscription.model_name, Subscription.status, Subscription.created_at
    asked = wanted.order_by(None).with_only_columns(literal("subscription"), *columns, Subscription.expires_at)
    active = keys.search(person, status="active").order_by(None)
    own = active.with_only_columns(
        literal("key"), ApiKey.id, ApiKey.name, literal("active"), ApiKey.created_at, ApiKey.expires_at
    )
    found = [Held(*row) for row in db.session.execute(union_all(asked, own))]
    return sorted(found, key=lambda one: one.id, reverse=True)


def smallest_call_nano() -> int:
    """What the cheapest call that is not free reserves, in nano-units: a short prompt and a short answer."""
    price, later = Price, aliased(Price)
    moment = now()
    superseded = exists().where(
        later.model_id == price.model_id,
        later.from_at <= moment,
        tuple_(later.from_at, later.id) > tuple_(price.from_at, price.id),
    )
    query = (  # only columns: each page of budgets needs this, and a catalogue can be long
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


def _member(team: Payer, person: Payer) -> Payer:
    """The payer of a person's cap in a team."""
    name = f"{person.name} in {team.name}"
    return Payer(
        "member", member_id(team.id, person.id), name, member_id(team.id, person.public_id), team.id, person.id
    )


def _keys(*where: ColumnElement[bool]) -> Any:
    return select(literal("key"), ApiKey.id, "key " + ApiKey.name, ApiKey.team_id, ApiKey.person_id).where(*where)


def _subscriptions(*where: ColumnElement[bool]) -> Any:
    person_id = case((_OF_TEAM, None), else_=Subscription.person_id)
    columns = literal("subscription"), Subscription.id, SUBSCRIPTION_NAME, Subscription.team_id, person_id
    return with_owners(select(*columns).select_from(Subscription)).where(*where)


def _people(*where: ColumnElement[bool]) -> Any:
    return select(literal("user"), Person.id, Person.username, null(), Person.id).where(*where)


def _teams(*where: ColumnElement[bool]) -> Any:
    return select(literal("team"), Team.id, "team " + Team.name, Team.id, null()).where(*where)


def _found(*pieces: Any) -> dict[Scope, Payer]:
    """The payers that these queries find, by scope and sorted by name. Each query selects kind, id, name, team and person."""
    rows = db.session.execute(union_all(*pieces)).all() if pieces else []
    return {
        (kind, id): Payer(kind, id, name, name if kind == "user" else id, team_id, person_id)
        for kind, id, name, team_id, person_id in sorted(rows, key=lambda row: row[2].casefold())
    }
