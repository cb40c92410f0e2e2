"""All budgets as a list for admins: narrowed and put in order by the database, from what the books say is spent.

What they say is kept beside each budget (`app.ledger.kept`). The books follow the meter within a second or two and know
no holds; the rows that are shown have the meter's numbers.
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
from app.metering.periods import Window, window_of
from app.web import budgets as arranged

ID = 36  # characters of an id; a member's is two of them with a colon between
AT_ONCE = 200  # rows of an export whose numbers are read together


def _text(query: Any) -> ColumnElement[str]:
    return func.coalesce(query.scalar_subquery(), "")


_of_scope = Budget.scope_id
_person = _text(
    select(Person.username).where(
        Person.id == func.substr(_of_scope, case((Budget.scope_kind == "member", ID + 2), else_=1))
    )
)
_team = _text(select(Team.name).where(Team.id == func.substr(_of_scope, 1, ID)))
_subscribed = payers.with_owners(select(payers.SUBSCRIPTION_NAME).select_from(Subscription))
# What `payers` calls a scope.
NAME: ColumnElement[str] = case(
    (Budget.scope_kind == "user", _person),
    (Budget.scope_kind == "key", "key " + _text(select(ApiKey.name).where(ApiKey.id == _of_scope))),
    (Budget.scope_kind == "team", "team " + _team),
    (Budget.scope_kind == "member", _person + " in team " + _team),
    (Budget.scope_kind == "subscription", _text(_subscribed.where(Subscription.id == _of_scope))),
    else_="the organisation",
)
_enforced: ColumnElement[Any] = case(
    (Budget.action == "refuse", Budget.limit_nano * Budget.action_percent / 100), else_=Budget.limit_nano
)


def listed(*, kind: str = "", state: str = "", search: str = "") -> Select[Budget]:
    """All budgets, the nearest to its limit first, narrowed to a kind of scope, to those near their limit or beyond it
    ("exhausted"), and to a part of the name."""
    share, left = _standing()
    query = select(Budget).order_by(share.desc(), Budget.id)
    if kind:
        query = query.where(Budget.scope_kind == kind)
    if state:
        exhausted = left < payers.smallest_call_nano()
        query = query.where(exhausted if state == "exhausted" else exhausted | (share * 100 >= arranged.NEAR))
    return query.where(_is_found_by(search)) if search else query


def _is_found_by(search: str) -> ColumnElement[bool]:
    """Whether a part of the name of what is charged contains a text: of the key, the person, the team, the model. What
    kind it is may be said first, as in "key nightly" and "team Research"."""
    people = select(Person.id).where(Person.username.icontains(search, autoescape=True))
    joined = select(Team.id).where(Team.name.icontains(_after("team", search), autoescape=True))
    key = _after("key", search)
    named = select(ApiKey.id).where(
        contains(key, ApiKey.name, ApiKey.note), ApiKey.name.icontains(key, autoescape=True)
    )
    subscribed = select(Subscription.id).where(
        or_(
            Subscription.model_name.icontains(search, autoescape=True),
            Subscription.team_id.in_(joined),
            and_(Subscription.team_id.is_(None), Subscription.person_id.in_(people)),
        )
    )
    return or_(
        and_(Budget.scope_kind == "key", _of_scope.in_(named)),
        and_(Budget.scope_kind == "user", _of_scope.in_(people)),
        and_(Budget.scope_kind == "team", _of_scope.in_(joined)),
        and_(Budget.scope_kind == "subscription", _of_scope.in_(subscribed)),
        and_(
            Budget.scope_kind == "member",
            or_(func.substr(_of_scope, 1, ID).in_(joined), func.substr(_of_scope, ID + 2).in_(people)),
        ),
        and_(Budget.scope_kind == "organisation", literal("the organisation").icontains(search, autoescape=True)),
    )


def _after(word: str, search: str) -> str:
    rest = search[len(word) + 1 :].strip()
    return rest if rest and search.lower().startswith(f"{word} ") else search


def columns() -> dict[str, Any]:
    """What the heads of the list sort by; periods end as seen from now."""
    share, left = _standing()
    kinds = sorted(arranged.KINDS, key=lambda kind: arranged.KINDS[kind])
    return {
        "name": func.lower(NAME),
        "kind": case({kind: place for place, kind in enumerate(kinds)}, value=Budget.scope_kind),
        "share": share,
        "left": left,
        "resets": _of_period(lambda window: literal(window.end_ms, BigInteger)),
    }


def _standing() -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Which share of its limit a row's budget has spent of its running period, and what is left, in nano-units."""
    runs = Budget.spent_period == _of_period(lambda window: literal(window.name))
    spent: ColumnElement[Any] = case((runs, Budget.spent_nano), else_=0)
    left: ColumnElement[Any] = case((_enforced > spent, _enforced - spent), else_=0)
    return case((_enforced > 0, cast_sql(spent, Float) / _enforced), else_=literal(1e300)), left


def _of_period(told: Any) -> ColumnElement[Any]:
    """What the running period of a row's budget tells; there are few kinds of periods."""
    at_ms = now_ms()
    if "budget_specs" not in g:
        g.budget_specs = db.session.execute(select(Budget.period, Budget.timezone).distinct()).all()
    cases = [
        (and_(Budget.period == period, Budget.timezone == timezone), told(window_of(f"{period}|{timezone}", at_ms)))
        for period, timezone in g.budget_specs
    ]
    return case(*cases, else_=None) if cases else told(Window("total", 0, 0))


def rows(found: Iterable[Budget]) -> list[arranged.Row]:
    """Budgets with the names of their scopes and the meter's numbers; the scopes that are gone are left out."""
    scopes = [(one.scope_kind, one.scope_id) for one in found]
    known = payers.read(scopes)
    return arranged.rows([known[scope] for scope in scopes if scope in known])


def every_row(found: Iterable[Budget]) -> Iterator[arranged.Row]:
    """The same for an export, some at a time."""
    waiting = iter(found)
    while some := list(islice(waiting, AT_ONCE)):
        yield from rows(some)
