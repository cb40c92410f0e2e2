"""The admins' list of all budgets, filtered and sorted by the database by what the ledger says is spent.

`app.ledger.list_order` keeps that beside each budget. The ledger follows the live counters within a second or two and
knows no holds, so the rows that are shown get their figures from the live counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from flask import g
from sqlalchemy import BigInteger, ColumnElement, Float, Select, and_, case, func, literal, or_, select
from sqlalchemy import cast as cast_sql

from app.clock import now_ms
from app.domain import payers
from app.domain.budgets import Budget
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.search import contains
from app.domain.subscriptions import Subscription
from app.domain.teams import Team
from app.extensions import db
from app.metering import forecast
from app.metering.periods import Window, window_of
from app.pages import budgets as budget_pages

BATCH = 200  # rows of an export whose figures are read together


def _or_empty(query: Any) -> ColumnElement[str]:
    return func.coalesce(query.scalar_subquery(), "")


_person = _or_empty(select(Person.username).where(Person.id == Budget.person_id))
_team = _or_empty(select(Team.name).where(Team.id == Budget.team_id))
_subscribed = payers.with_owners(select(payers.SUBSCRIPTION_NAME).select_from(Subscription))
# The name of a scope, as `payers` writes it.
NAME: ColumnElement[str] = case(
    (Budget.scope_kind == "user", _person),
    (Budget.scope_kind == "key", "key " + _or_empty(select(ApiKey.name).where(ApiKey.id == Budget.scope_id))),
    (Budget.scope_kind == "team", "team " + _team),
    (Budget.scope_kind == "member", _person + " in team " + _team),
    (Budget.scope_kind == "subscription", _or_empty(_subscribed.where(Subscription.id == Budget.scope_id))),
    else_="the organisation",
)
_enforced: ColumnElement[Any] = case(
    (Budget.action == "refuse", Budget.limit_nano * Budget.action_percent / 100), else_=Budget.limit_nano
)


def search(*, kind: str = "", state: str = "", text: str = "") -> Select[Budget]:
    """Returns all budgets, the nearest to its limit first: of one kind of scope, near their limit ("near"), used up
    ("exhausted") or with a forecast above it ("forecast"), with a name that contains `text`."""
    share, remaining, expected = _standing()
    query = select(Budget).order_by(share.desc(), Budget.id)
    if kind:
        query = query.where(Budget.scope_kind == kind)
    if state == "forecast":
        query = query.where(expected > 1)
    elif state:
        exhausted = remaining < payers.smallest_call_nano()
        query = query.where(exhausted if state == "exhausted" else exhausted | (share * 100 >= budget_pages.NEAR))
    return query.where(_name_contains(text)) if text else query


def _name_contains(text: str) -> ColumnElement[bool]:
    """Whether the name of what is charged contains `text`: the name of the key, the person, the team or the model. Its
    kind may come first, as in "key nightly" and "team Research"."""
    people = select(Person.id).where(Person.username.icontains(text, autoescape=True))
    joined = select(Team.id).where(Team.name.icontains(_after("team", text), autoescape=True))
    key = _after("key", text)
    named = select(ApiKey.id).where(
        contains(key, ApiKey.name, ApiKey.note), ApiKey.name.icontains(key, autoescape=True)
    )
    subscribed = select(Subscription.id).where(
        or_(
            Subscription.model_name.icontains(text, autoescape=True),
            Subscription.team_id.in_(joined),
            and_(Subscription.team_id.is_(None), Subscription.person_id.in_(people)),
        )
    )
    return or_(
        and_(Budget.scope_kind == "key", Budget.scope_id.in_(named)),
        Budget.person_id.in_(people),
        Budget.team_id.in_(joined),
        and_(Budget.scope_kind == "subscription", Budget.scope_id.in_(subscribed)),
        and_(Budget.scope_kind == "organisation", literal("the organisation").icontains(text, autoescape=True)),
    )


def _after(word: str, text: str) -> str:
    """Returns `text` without `word` at its start, if more follows."""
    rest = text[len(word) + 1 :].strip()
    return rest if rest and text.lower().startswith(f"{word} ") else text


def columns() -> dict[str, Any]:
    """The sortable columns of the list. Periods end relative to now."""
    share, remaining, expected = _standing()
    kinds = sorted(budget_pages.KINDS, key=lambda kind: budget_pages.KINDS[kind])
    return {
        "name": func.lower(NAME),
        "kind": case({kind: place for place, kind in enumerate(kinds)}, value=Budget.scope_kind),
        "share": share,
        "left": remaining,
        "forecast": expected,
        "resets": _of_period(lambda window: literal(window.end_ms, BigInteger)),
    }


def _standing() -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    """Returns three expressions: the share of its limit that a budget has spent in the current period, the remaining
    nano-units, and the forecast as a share of the limit that was set: -1 where there is none."""
    runs = Budget.spent_period == _of_period(lambda window: literal(window.name))
    spent: ColumnElement[Any] = case((runs, Budget.spent_nano), else_=0)
    remaining: ColumnElement[Any] = case((_enforced > spent, _enforced - spent), else_=0)
    share = case((_enforced > 0, cast_sql(spent, Float) / _enforced), else_=literal(1e300))
    growth = _of_period(lambda window: literal(float(forecast.growth(window, now_ms()) or 0), Float))
    expected = case(
        (or_(growth.is_(None), growth == 0), literal(-1.0)),
        (Budget.limit_nano > 0, cast_sql(spent, Float) * growth / Budget.limit_nano),
        else_=literal(1e300),
    )
    return share, remaining, expected


def _of_period(value_of: Any) -> ColumnElement[Any]:
    """What `value_of` returns for the current period of a budget. There are few kinds of periods."""
    at_ms = now_ms()
    if "budget_specs" not in g:
        g.budget_specs = db.session.execute(select(Budget.period, Budget.timezone).distinct()).all()
    cases = [
        (and_(Budget.period == period, Budget.timezone == timezone), value_of(window_of(f"{period}|{timezone}", at_ms)))
        for period, timezone in g.budget_specs
    ]
    return case(*cases, else_=None) if cases else value_of(Window("total", 0, 0))


def rows(budgets: Iterable[Budget]) -> list[budget_pages.Row]:
    """Returns rows with the names of the scopes and the live figures. It leaves out scopes that no longer exist."""
    scopes = [(budget.scope_kind, budget.scope_id) for budget in budgets]
    payer_of = payers.read(scopes)
    return budget_pages.rows([payer_of[scope] for scope in scopes if scope in payer_of])


def every_row(budgets: Iterable[Budget]) -> Iterator[budget_pages.Row]:
    """Yields the same rows for an export, in batches."""
    remaining = iter(budgets)
    while batch := list(islice(remaining, BATCH)):
        yield from rows(batch)
