"""Teams: who is in them, what they share, and what stops when somebody goes."""

from __future__ import annotations

import msgspec
import pytest
import redis

from app import current, store
from app.directory import CallerRecord
from app.domain import budgets, keys, subscriptions, teams
from app.domain.catalog import Model
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.notices import Notice
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.metering.scopes import member_id
from app.runtime.sealing import digest
from app.workflows import offboarding, publication
from tests.house import People, make_model


def caller(wire: redis.Redis, text: str) -> CallerRecord | None:
    found = wire.get(store.caller(digest(current.secrets().key_pepper, text)))
    return msgspec.json.decode(str(found), type=CallerRecord) if found else None


@pytest.fixture
def model(people: People) -> Model:
    return transaction(make_model, people.admin)


@pytest.fixture
def team(people: People) -> Team:
    """A team that `owner` owns."""
    return transaction(teams.create, by=people.owner, name="Research", rpm=None)


def join(team: Team, person: Person, *, by: Person, role: str = "member") -> None:
    transaction(teams.put_member, team, person, by=by, role=role)


def test_who_makes_a_team_owns_it_and_strangers_do_not_see_it(people: People, team: Team) -> None:
    assert teams.role_in(people.owner, team.id) == "owner"
    assert teams.get_visible(people.admin, team.id, change=True) is team
    with pytest.raises(NotFound):
        teams.get_visible(people.stranger, team.id)
    join(team, people.stranger, by=people.owner)
    assert teams.get_visible(people.stranger, team.id) is team
    with pytest.raises(Forbidden):
        teams.get_visible(people.stranger, team.id, change=True)


def test_names_are_taken_whatever_their_case(people: People, team: Team) -> None:
    with pytest.raises(Conflict):
        transaction(teams.create, by=people.admin, name="RESEARCH")


def test_a_team_key_calls_what_the_team_is_subscribed_to_and_nothing_else(
    people: People, team: Team, model: Model, wire: redis.Redis
) -> None:
    transaction(subscriptions.request, people.owner, model, by=people.owner)
    _, text = transaction(keys.create, people.owner, by=people.owner, name="ours", team=team)
    found = caller(wire, text)
    assert found is not None
    assert (found.team_id, found.team, found.models) == (team.id, "Research", {})  # the personal one plays no part
    made, new = transaction(subscriptions.request, people.owner, model, by=people.owner, team=team)
    assert new
    found = caller(wire, text)
    assert found is not None and found.models == {model.name: made.id}


def test_a_team_has_one_live_subscription_to_a_model_whoever_asks(people: People, team: Team, model: Model) -> None:
    join(team, people.stranger, by=people.owner)
    first, _ = transaction(subscriptions.request, people.owner, model, by=people.owner, team=team)
    again, new = transaction(subscriptions.request, people.stranger, model, by=people.stranger, team=team)
    assert (again.id, new) == (first.id, False)
    assert subscriptions.get_visible(people.stranger, first.id).id == first.id
    with pytest.raises(Forbidden):
        subscriptions.get_visible(people.stranger, first.id, change=True)


def test_only_members_make_keys_and_ask_for_a_team(people: People, team: Team, model: Model) -> None:
    with pytest.raises(Invalid):
        transaction(keys.create, people.stranger, by=people.stranger, name="mine", team=team)
    with pytest.raises(Invalid):
        transaction(subscriptions.request, people.stranger, model, by=people.stranger, team=team)


def test_who_is_removed_loses_the_team_s_keys_and_keeps_their_own(
    people: People, team: Team, model: Model, wire: redis.Redis
) -> None:
    join(team, people.stranger, by=people.owner)
    _, theirs = transaction(keys.create, people.stranger, by=people.stranger, name="ours", team=team)
    _, own = transaction(keys.create, people.stranger, by=people.stranger, name="mine")
    assert caller(wire, theirs) and caller(wire, own)
    transaction(offboarding.leave, team, people.stranger, by=people.owner)
    assert caller(wire, theirs) is None
    assert caller(wire, own) is not None
    told = db.session.query(Notice).filter_by(person_id=people.stranger.id, kind="team.left").one()
    assert "Research" in told.title


def test_a_key_of_somebody_who_is_no_member_is_never_published(people: People, team: Team, wire: redis.Redis) -> None:
    """Even where the leaving forgot to revoke it."""
    join(team, people.stranger, by=people.owner)
    _, text = transaction(keys.create, people.stranger, by=people.stranger, name="ours", team=team)
    transaction(teams.remove_member, team, people.stranger, by=people.owner)
    assert caller(wire, text) is None
    publication.publish_all()
    assert caller(wire, text) is None


def test_a_team_keeps_an_owner(people: People, team: Team) -> None:
    join(team, people.stranger, by=people.owner)
    with pytest.raises(Conflict):
        transaction(offboarding.leave, team, people.owner, by=people.owner)
    with pytest.raises(Conflict):
        transaction(teams.put_member, team, people.owner, by=people.owner, role="member")
    join(team, people.stranger, by=people.owner, role="owner")
    transaction(offboarding.leave, team, people.owner, by=people.owner)
    assert teams.role_in(people.stranger, team.id) == "owner"


def test_an_invitation_is_answered_once_by_the_one_invited(people: People, team: Team) -> None:
    asked = transaction(teams.invite, team, people.stranger, by=people.owner)
    assert transaction(teams.invite, team, people.stranger, by=people.owner).id == asked.id
    with pytest.raises(Forbidden):
        transaction(teams.answer, asked, by=people.owner, accept=True)
    transaction(teams.answer, asked, by=people.stranger, accept=True)
    assert teams.role_in(people.stranger, team.id) == "member"
    with pytest.raises(NotFound):
        teams.reach_invitation(people.stranger, asked.id)


def test_an_owner_cannot_raise_the_bounds_of_their_own_team(people: People, team: Team) -> None:
    with pytest.raises(Forbidden):
        transaction(teams.update, team, by=people.owner, rpm=5)
    with pytest.raises(Forbidden):
        transaction(teams.update, team, by=people.owner, budget={"limit": "5", "period": "day"})
    db.session.refresh(team)
    transaction(teams.update, team, by=people.admin, rpm=5, budget={"limit": "5", "period": "day"})
    assert team.rpm == 5


def test_limits_caps_and_budgets_are_published_and_go_with_the_team(
    people: People, team: Team, wire: redis.Redis
) -> None:
    transaction(teams.update, team, by=people.admin, rpm=7, budget={"limit": "5", "period": "total"})
    cap = {"limit": "2", "period": "total"}
    transaction(teams.put_member, team, people.owner, by=people.admin, role="owner", budget=cap)
    member = member_id(team.id, people.owner.id)
    told = wire.hgetall(store.scope("team", team.id))
    assert (told["rpm"], told["limit"]) == ("7", "5000000000")
    assert wire.hgetall(store.scope("member", member))["limit"] == "2000000000"
    wire.flushall()
    publication.publish_all()
    assert wire.hgetall(store.scope("team", team.id))["rpm"] == "7"
    _, text = transaction(keys.create, people.owner, by=people.owner, name="ours", team=team)
    transaction(offboarding.dissolve, team, by=people.owner)
    assert caller(wire, text) is None
    assert "limit" not in wire.hgetall(store.scope("team", team.id))
    assert budgets.find("member", member) is None


def test_a_person_who_is_deleted_leaves_the_team_its_subscriptions(
    people: People, team: Team, model: Model, wire: redis.Redis
) -> None:
    join(team, people.stranger, by=people.owner)
    made, _ = transaction(subscriptions.request, people.stranger, model, by=people.stranger, team=team)
    _, text = transaction(keys.create, people.owner, by=people.owner, name="ours", team=team)
    transaction(offboarding.delete, people.stranger, by=people.admin)
    found = caller(wire, text)
    assert found is not None and found.models == {model.name: made.id}
