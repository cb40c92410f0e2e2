"""Budgets: the limit of each scope, and what is currently spent and reserved."""

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
    """`thresholds` are percentages of the limit at which the people concerned are notified. `action` says what else
    happens at `action_percent`: `notify` (nothing else), `refuse` (new requests are refused) or `suspend` (a key is
    paused); only admins can set it. What you leave out stays unchanged."""

    thresholds: Annotated[list[Percent], Meta(max_length=10)] | msgspec.UnsetType = msgspec.UNSET
    action: budgets.Action | msgspec.UnsetType = msgspec.UNSET
    action_percent: Percent | msgspec.UnsetType = msgspec.UNSET


class Budget(msgspec.Struct, kw_only=True):
    """Without a limit, `limit` and `remaining` are null; `spent` is given anyway.

    The gateway enforces `enforced_limit`. It is less than `limit` if new requests are refused earlier.
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
    """`amount` is a decimal above 0."""

    amount: Annotated[str, Meta(max_length=40)] | int
    reason: Annotated[str, Meta(max_length=credits.LONGEST_REASON)]


class Credit(msgspec.Struct, kw_only=True):
    """Room given back to the current period of a budget. It changes nothing that was used or paid."""

    id: str
    scope: str
    scope_id: str
    amount: str | None
    reason: str
    by: str
    at: datetime


class BudgetPage(CursorPage, kw_only=True):
    data: list[Budget]


class Query(Cursored, kw_only=True):
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
    """Returns the scope's own id, if this person may see the scope. Raises `NotFound` or `Forbidden`.

    With `change`, a key's budget is for its owner, a member's cap for the team's owners, and any other budget for
    admins.
    """
    person = me()
    if kind == "key":
        return keys.get_visible(person, id, change=change).id
    if kind == "member":
        return _member(person, id, change=change).scope_id
    if kind == "team":
        scope_id = teams.get_visible(person, id).id
    elif kind == "subscription":
        scope_id = subscriptions.get_visible(person, id).id
    elif kind == "user" and (person.sees_everything or id.lower() == person.username.lower()):
        scope_id = identity.named(id).id
    elif kind == "organisation" and id == "default" and (person.sees_everything or change):
        scope_id = id
    else:
        raise NotFound("This budget does not exist.")
    if change and not person.is_admin:
        raise Forbidden("Changing this budget needs the role admin.")
    return scope_id


def _member(person: Person, id: str, *, change: bool) -> teams.Membership:
    """The member that `<team id>:<username>` names."""
    team_id, username = team_and_person("member", id)
    team, named_person = teams.get_visible(person, str(team_id), change=change), identity.find(str(username))
    if named_person is None:
        raise NotFound("This budget does not exist.")
    return teams.member(team, named_person)


def _mine(person: Person) -> set[str]:
    """The ids of all scopes that a person may see."""
    ids = {person.id}
    ids.update(db.session.scalars(keys.visible_to(person).with_only_columns(keys.ApiKey.id)))
    ids.update(db.session.scalars(subscriptions.visible_to(person).with_only_columns(subscriptions.Subscription.id)))
    joined = [membership.team for membership in teams.memberships_of(person)]
    ids.update(team.id for team in joined)
    ids.update(teams.caps_in(*joined))
    return ids


def _names(scopes: Sequence[budgets.Standing]) -> dict[str, str]:
    """The public ids of the scopes whose own id contains a person's id."""
    within = {scope.id: team_and_person(scope.kind, scope.id) for scope in scopes}
    people = identity.names_of(person_id for _, person_id in within.values() if person_id is not None)
    return {
        id: people[person_id] if team_id is None else member_id(team_id, people[person_id])
        for id, (team_id, person_id) in within.items()
        if person_id in people
    }


@route("GET", "/api/budgets", query=Query, answer=BudgetPage)
def index(query: Query) -> dict[str, Any]:
    """Lists the budgets that you can see: your own and those of your teams; admins see all."""
    person, scope = me(), query.scope
    rows = budgets.all_()
    if not person.sees_everything:
        rows = rows.where(budgets.Budget.scope_id.in_(_mine(person)))
    if scope is not None:
        rows = rows.where(budgets.Budget.scope_kind == scope)
    result = page(rows, lambda budget: (budget.scope_kind, budget.scope_id))
    standings = budgets.standings(result["data"])
    names = _names(standings)
    return result | {"data": [show(standing, names.get(standing.id, standing.id)) for standing in standings]}


@route("GET", "/api/budgets/<scope>/<id>", answer=Budget)
def detail(scope: str, id: str) -> Budget:
    """Returns one scope's budget and what is spent of it.

    `id` is `default` for the organisation, a username for `user`, `<team id>:<username>` for a `member`'s cap in a
    team, and otherwise the object's own id.
    """
    return show(budgets.standing(scope, _scope_id(scope, id)), id)


@route("PUT", "/api/budgets/<scope>/<id>", answer=Budget, body=BudgetSetting, writes=True)
def put(scope: str, id: str, body: BudgetSetting) -> Budget:
    """Sets or changes a scope's budget, its alerts and its action."""
    scope_id = _scope_id(scope, id, change=True)
    budgets.set_budget(cast("Any", scope), scope_id, by=me(), **body.to_changes())
    return show(budgets.standing(scope, scope_id), id)


@route("DELETE", "/api/budgets/<scope>/<id>", status=204, writes=True)
def remove(scope: str, id: str) -> None:
    """Removes a scope's limit."""
    budgets.clear(cast("Any", scope), _scope_id(scope, id, change=True), by=me())


@route("POST", "/api/budgets/<scope>/<id>/credits", scope="admin", answer=Credit, status=201, body=CreditBody)
def give_credit(scope: str, id: str, body: CreditBody) -> Credit:
    """Gives room back to the current period of a budget, with a reason. For admins. Nothing is ever reset."""
    credit_id = new_id()  # created outside the unit of work, so that running it again does not give the credit twice

    def give() -> credits.Credit:
        scope_id = _scope_id(scope, id, change=True)
        return credits.give(
            current.redis(), credit_id, scope, scope_id, by=me(), amount=body.amount, reason=body.reason
        )

    credit = transaction(give)
    return Credit(
        id=credit.id,
        scope=scope,
        scope_id=id,
        amount=amount(credit.amount_nano),
        reason=credit.reason,
        by=credit.by,
        at=credit.at,
    )
