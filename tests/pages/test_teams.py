"""Teams in a list: what each has spent this month, and which of it is known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain import budgets, subscriptions, teams
from app.domain.teams import Team
from app.extensions import db, transaction
from app.ledger import posting
from app.pages import teams as listed
from tests.conftest import SetClock
from tests.house import People, make_model
from tests.ledger.books import event

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def pair(people: People, set_clock: SetClock) -> tuple[Team, Team]:
    """Two teams of the owner's: the first has two members, a model, a budget and usage."""
    set_clock(NOON)
    first, second = (transaction(teams.create, by=people.owner, name=name, rpm=None) for name in ("First", "Second"))
    transaction(teams.put_member, first, people.stranger, by=people.owner, role="member")
    model = transaction(make_model, people.admin)
    transaction(subscriptions.request, people.owner, model, by=people.owner, team=first)
    transaction(budgets.set_budget, "team", first.id, by=people.admin, limit="10", period="month")

    def used(team: Team, day: datetime, cost: int, **more: Any) -> None:
        at_ms = int(day.timestamp() * 1000)
        posting.post([event(person_id=people.stranger.id, team_id=team.id, at_ms=at_ms, cost_nano=cost, **more)])

    used(first, NOON, 3)
    used(first, datetime(2026, 11, 1, tzinfo=UTC), 4)
    used(first, datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC), 100)
    db.session.rollback()
    return first, second


def test_the_figures_are_of_each_team_and_of_this_month(people: People, pair: tuple[Team, Team]) -> None:
    first, second = (team.id for team in pair)
    found = listed.figures(people.owner, [first, second])
    assert found.members == {first: 2, second: 1}
    assert found.models == {first: 1}
    assert found.spent_nano == {first: 7}, "since the first of the month, UTC, by everybody in it"
    assert found.standings[first].limit_nano == 10 * 10**9
    assert found.standings[second].limit_nano is None


def test_no_teams_have_no_figures(people: People) -> None:
    assert listed.figures(people.owner, []) == ({}, {}, {}, {})


def test_a_file_tells_exact_amounts_and_ones_own_role(people: People, pair: tuple[Team, Team]) -> None:
    figures = listed.figures(people.owner, [team.id for team in pair])
    columns = listed.export_columns(figures, {pair[0].id: "owner"})
    first, second = ({name: show(team) for name, show in columns.items()} for team in pair)
    assert (first["my_role"], first["budget"], first["spent_this_month"]) == ("owner", "10", "0.000000007")
    assert first["resets_at"] == datetime(2026, 12, 1, tzinfo=UTC)
    assert (second["my_role"], second["budget"], second["spent_this_month"], second["models"]) == (None, None, "0", 0)
