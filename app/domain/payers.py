"""Payers: the scopes that calls are charged to, as people speak of them, and who has which part in their budgets.

A scope is only a kind and an id to the meter; here it gets a name, an address, those whom it concerns and those who
may ask for more. It stands above the nouns that scopes are made of, so that none of them has to know the others.
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
# What a subscription is called, beside its owners.
SUBSCRIPTION_NAME: ColumnElement[str] = (
    "subscription of "
    + case((_OF_TEAM, "team " + func.coalesce(Team.name, Subscription.team_id)), else_=Person.username)
    + " to "
    + Subscription.model_name
)

SHORTEST_ANSWER, SHORTEST_PROMPT = 16, 99  # tokens that the smallest call holds


class Payer(NamedTuple):
    """A scope with its name in words, such as "key nightly", and the id that addresses show."""

    kind: str
    id: str
    name: str
    public_id: str
    team_id: str | None = None  # the team that it belongs to, or is
    person_id: str | None = None  # the one person whose it is, in a team or not

    @property
    def scope(self) -> Scope:
        return self.kind, self.id

    @property
    def path(self) -> str:
        """The page of its budget."""
        return f"/budgets/{self.kind}/{self.public_id}"


class Held(NamedTuple):
    """A key or a subscription of one's own."""

    kind: str
    id: str
    name: str  # a key's, or that of the model
    status: str
    created_at: datetime
    expires_at: datetime | None


def read(scopes: Iterable[Scope]) -> dict[Scope, Payer]:
    """What these scopes are, in one query; those that are gone are left out."""
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
    """The payer of an address: people are named by their usernames or ids. Raises `NotFound`."""
    id = text
    if kind in ("user", "member"):
        team_id, who = team_and_person(kind, text)
        person = identity.find(str(who)) or identity.by_id(str(who))
        id = "" if person is None else member_id(team_id, person.id) if team_id is not None else person.id
    found = read([(kind, id)]).get((kind, id)) if kind in budgets.KINDS else None
    if found is None or (kind == "member" and db.session.get(Membership, team_and_person(kind, id)) is None):
        raise NotFound("There is no such budget.")
    return found


def get_visible(person: Person, kind: str, text: str) -> Payer:
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


def people_to_alert(payer: Payer) -> list[Person]:
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


def paying_for(person: Person) -> list[Payer]:
    """All that a person's calls may be charged to: themselves, their keys and subscriptions, their teams with their
    own caps there, and the organisation; in this order."""
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
    """Those whose calls this payer pays for too, and who may be cut off by budgets of their own: a team's members and
    keys, a person's keys."""
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
    """Subscriptions beside the person and the team whose they are."""
    return query.join(Person, Person.id == Subscription.person_id).outerjoin(Team, Team.id == Subscription.team_id)


def held_by(person: Person) -> list[Held]:
    """A person's own active keys and their own subscriptions, those asked for too, in one query; the newest first."""
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
    """What the cheapest call that costs anything has to fit, in nano-units: a short prompt and a short answer."""
    price, later = Price, aliased(Price)
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


def _member(team: Payer, person: Payer) -> Payer:
    """A person's part in a team."""
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
    """What these queries find, all at once and by name: kind, id, name, team and person each. People are shown by their
    names."""
    rows = db.session.execute(union_all(*pieces)).all() if pieces else []
    return {
        (kind, id): Payer(kind, id, name, name if kind == "user" else id, team_id, person_id)
        for kind, id, name, team_id, person_id in sorted(rows, key=lambda row: row[2].casefold())
    }
