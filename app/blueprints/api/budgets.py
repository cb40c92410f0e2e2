"""Budgets: the limit of every scope, with what is spent and held of it now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec import Meta

from app import current
from app.blueprints.api.contract import Body, Cursored, CursorPage, amount, me, page, route
from app.blueprints.api.subscriptions import BudgetBody
from app.domain import budgets, identity, keys, subscriptions, teams
from app.domain.errors import Forbidden, NotFound
from app.domain.person import Person
from app.extensions import db, transaction
from app.metering.scopes import member_id, team_and_person
from app.runtime.ids import new_id
from app.workflows import credits

Kind = Literal["organisation", "team", "member", "user", "subscription", "key"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Percent = Annotated[int, Meta(ge=1, le=100)]


class BudgetSetting(BudgetBody, kw_only=True):
    """`thresholds` are percents of the limit at which those whom it concerns are told. `action` is what else happens,
    at `action_percent`: `notify` (nothing else), `refuse` (new work is refused from there on) or `suspend` (a key is
    paused); admins set it. What of these is left out stays as it is."""

    thresholds: Annotated[list[Percent], Meta(max_length=10)] | msgspec.UnsetType = msgspec.UNSET
    action: budgets.Action | msgspec.UnsetType = msgspec.UNSET
    action_percent: Percent | msgspec.UnsetType = msgspec.UNSET


class Budget(msgspec.Struct, kw_only=True):
    """Without a limit, `limit` and `remaining` are null; what is spent is told all the same.

    `enforced_limit` is what requests are measured by: less than `limit` where new work is refused before it.
    """

    scope: str
    id: str
    limit: str | None
    enforced_limit: str | None
    period: str
    timezone: str
    spent: str | None
    reserved: str | None
    remaining: str | None
    resets_at: datetime | None
    thresholds: list[int] | None
    action: str | None
    action_percent: int | None


class CreditBody(Body, kw_only=True):
    """`amount` a decimal above 0."""

    amount: Annotated[str, Meta(max_length=40)] | int
    reason: Annotated[str, Meta(max_length=credits.LONGEST_REASON)]


class Credit(msgspec.Struct, kw_only=True):
    """Room given back to the running period of a budget; nothing that was used or paid changes."""

    id: str
    scope: str
    scope_id: str
    amount: str | None
    reason: str
    by: str
    at: datetime


class BudgetPage(CursorPage, kw_only=True):
    data: list[Budget]


class Asked(Cursored, kw_only=True):
    scope: Kind | None = None


def show(standing: budgets.Standing, name: str) -> Budget:
    return Budget(
        scope=standing.kind,
        id=name,
        limit=amount(standing.whole_nano),
        enforced_limit=amount(standing.limit_nano),
        period=standing.period,
        timezone=standing.timezone,
        spent=amount(standing.spent_nano),
        reserved=amount(standing.reserved_nano),
        remaining=amount(standing.remaining_nano),
        resets_at=standing.resets_at,
        thresholds=None if standing.rules is None else list(standing.rules.thresholds),
        action=None if standing.rules is None else standing.rules.action,
        action_percent=None if standing.rules is None else standing.rules.action_percent,
    )


def _scope_id(kind: str, id: str, *, change: bool = False) -> str:
    """The scope's own id, found only within this person's reach. A key's is for its owner to change, a member's cap for
    the team's owners, all others need an admin."""
    person = me()
    if kind == "key":
        return keys.get_visible(person, id, change=change).id
    if kind == "member":
        return _member(person, id, change=change).scope_id
    if kind == "team":
        found = teams.get_visible(person, id).id
    elif kind == "subscription":
        found = subscriptions.get_visible(person, id).id
    elif kind == "user" and (person.sees_everything or id.lower() == person.username.lower()):
        found = identity.named(id).id
    elif kind == "organisation" and id == "default" and (person.sees_everything or change):
        found = id
    else:
        raise NotFound("There is no such budget.")
    if change and not person.is_admin:
        raise Forbidden("Changing this budget needs the role admin.")
    return found


def _member(person: Person, id: str, *, change: bool) -> teams.Membership:
    """The member that `<team id>:<username>` names."""
    team_id, username = team_and_person("member", id)
    team, named = teams.get_visible(person, str(team_id), change=change), identity.find(str(username))
    if named is None:
        raise NotFound("There is no such budget.")
    return teams.member(team, named)


def _mine(person: Person) -> set[str]:
    """The ids of the scopes within a person's reach."""
    found = {person.id}
    found.update(db.session.scalars(keys.visible_to(person).with_only_columns(keys.ApiKey.id)))
    found.update(db.session.scalars(subscriptions.visible_to(person).with_only_columns(subscriptions.Subscription.id)))
    joined = [membership.team for membership in teams.memberships_of(person)]
    found.update(team.id for team in joined)
    found.update(teams.caps_in(*joined))
    return found


def _names(scopes: Sequence[budgets.Standing]) -> dict[str, str]:
    """What the API calls those scopes that bear a person's id in their own."""
    within = {scope.id: team_and_person(scope.kind, scope.id) for scope in scopes}
    people = identity.names_of(person_id for _, person_id in within.values() if person_id is not None)
    return {
        id: people[person_id] if team_id is None else member_id(team_id, people[person_id])
        for id, (team_id, person_id) in within.items()
        if person_id in people
    }


@route("GET", "/api/budgets", query=Asked, answer=BudgetPage)
def index(asked: Asked) -> dict[str, Any]:
    """The budgets within one's reach: all for admins, else one's own and those of one's teams. Filter `scope`."""
    person, scope = me(), asked.scope
    query = budgets.all_()
    if not person.sees_everything:
        query = query.where(budgets.Budget.scope_id.in_(_mine(person)))
    if scope is not None:
        query = query.where(budgets.Budget.scope_kind == scope)
    told = page(query, lambda budget: (budget.scope_kind, budget.scope_id))
    shown = budgets.standings(told["data"])
    names = _names(shown)
    return told | {"data": [show(standing, names.get(standing.id, standing.id)) for standing in shown]}


@route("GET", "/api/budgets/<scope>/<id>", answer=Budget)
def detail(scope: str, id: str) -> Budget:
    """One scope's budget and what is spent of it.

    `id` is `default` for the organisation, a username for `user`, `<team id>:<username>` for a `member`'s cap in a
    team, else the thing's own id.
    """
    return show(budgets.standing(scope, _scope_id(scope, id)), id)


@route("PUT", "/api/budgets/<scope>/<id>", answer=Budget, body=BudgetSetting, writes=True)
def put(scope: str, id: str, body: BudgetSetting) -> Budget:
    """Gives a scope a budget or changes it, and what is told and done when it is nearly spent."""
    found = _scope_id(scope, id, change=True)
    budgets.set_budget(cast("Any", scope), found, by=me(), **body.given())
    return show(budgets.standing(scope, found), id)


@route("DELETE", "/api/budgets/<scope>/<id>", status=204, writes=True)
def remove(scope: str, id: str) -> None:
    """Takes a scope's limit away."""
    budgets.clear(cast("Any", scope), _scope_id(scope, id, change=True), by=me())


@route("POST", "/api/budgets/<scope>/<id>/credits", scope="admin", answer=Credit, status=201, body=CreditBody)
def give_credit(scope: str, id: str, body: CreditBody) -> Credit:
    """Gives the running period of a budget room back, with a reason: for admins. Nothing is ever reset."""
    credit_id = new_id()  # made once, so that a unit of work that is run again gives it once

    def give() -> credits.Credit:
        found = _scope_id(scope, id, change=True)
        return credits.give(current.redis(), credit_id, scope, found, by=me(), amount=body.amount, reason=body.reason)

    given = transaction(give)
    return Credit(
        id=given.id,
        scope=scope,
        scope_id=id,
        amount=amount(given.amount_nano),
        reason=given.reason,
        by=given.by,
        at=given.at,
    )
