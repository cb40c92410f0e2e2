"""The first page after signing in: what needs this person, what they spent, what they can call, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from operator import attrgetter

from flask import Blueprint, Response

from app.blueprints.portal.person import me
from app.clock import now
from app.domain import budgets, payers
from app.domain.payers import Held
from app.domain.person import Person
from app.ledger.rollups import period_start
from app.pages.badges import badges
from app.pages.budgets import NEAR, named_standings
from app.pages.first_steps import first_steps
from app.pages.snippets import base_url
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, PeriodUsage, Sums
from app.web.render import render
from app.web.request_cache import memberships
from app.workflows import catalog_changes, provider_health

DAYS = 7
LONGEST_MONTH = 31  # days
EXPIRES_SOON = timedelta(days=7)
RECENT = 4  # models to show
CALLABLE, LAST = 8, 5  # models and requests to show


bp = Blueprint("home", __name__)


@bp.get("/home")
def index() -> Response:
    person = me()
    own = Filters(person_id=person.id)
    month, week = _month_and_week(person, own)
    holdings = payers.held_by(person)
    own_subscriptions = [held for held in holdings if held.kind == "subscription"]
    active_keys = [held for held in holdings if held.kind == "key"]
    has_called = bool(month.requests) or bool(requests.newest_served(person, filters=own, limit=1))
    newest = catalog_changes.newest(RECENT)
    (_, own_budget), *shared = named_standings(_shared_scopes(person))
    return render(
        "portal/home/index.html",
        name=person.username,
        month=month,
        team_nano=_paid_by_teams(person) if month.cost_nano else 0,
        week=week,
        budget=own_budget,
        short=[
            (name, standing)
            for name, standing in (("Your budget", own_budget), *shared)
            if _is_short(standing.seen_by(person))
        ],
        unread=badges(person).unread,
        callable=CALLABLE,
        last=requests.newest(person, filters=own, limit=LAST) if has_called else [],
        subscribed=[held for held in own_subscriptions if held.status == "active"],
        active_keys=active_keys,
        has_called=has_called,
        pending=[held for held in own_subscriptions if held.status == "pending"],
        expiring=_expiring(active_keys),
        newest=newest,
        latest=catalog_changes.access(person, [item.id for item in newest]),
        is_new=catalog_changes.is_new,
        health=provider_health.of_models(newest),
        first_steps=first_steps() if person.sees_everything else [],
        locked=not person.is_admin,
        pending_decisions=badges(person).subscriptions,
        system=usage_reports.summary(person) if person.sees_everything else None,
        base_url=base_url(),
    )


def _paid_by_teams(person: Person) -> int:
    """Returns what teams paid of a person's calls of this month, UTC, in nano-units: it is no part of their own budget."""
    filters = Filters(person_id=person.id, from_ms=period_start("month", usage_reports.now_ms()))
    return sum(share.cost_nano for share in usage_reports.by(person, "team_id", filters=filters) if share.name)


def _shared_scopes(person: Person) -> list[tuple[str, str, str]]:
    """The person, their teams and the organisation, as kind, id and name."""
    teams = [("team", one.team_id, f"The budget of the team {one.team.name}") for one in memberships(person)]
    return [("user", person.id, person.username), *teams, ("organisation", "default", "The organisation’s budget")]


def _is_short(standing: budgets.Standing) -> bool:
    """Whether a budget is nearly used up, or will be before its period ends."""
    if standing.limit_nano is None or standing.spent_nano is None:
        return False
    used = standing.spent_nano + (standing.reserved_nano or 0)
    return used * 100 >= NEAR * standing.limit_nano or standing.will_exceed


def _expiring(active_keys: Sequence[Held]) -> list[Held]:
    """The keys that expire within a week, the soonest first."""
    soon = [key for key in active_keys if key.expires_at is not None and key.expires_at <= now() + EXPIRES_SOON]
    return sorted(soon, key=attrgetter("expires_at"))


def _month_and_week(person: Person, filters: Filters) -> tuple[Sums, list[PeriodUsage]]:
    """Returns the sums of this month, UTC, and those of the last seven days."""
    days = usage_reports.usage(person, "day", periods=LONGEST_MONTH, filters=filters)
    first = period_start("month", days[-1].start_ms)
    month = Sums()
    for day in days:
        if day.start_ms >= first:
            month.add(day)
    return month, days[-DAYS:]
