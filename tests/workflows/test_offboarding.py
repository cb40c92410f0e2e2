"""Who goes takes what was theirs along, and leaves what belongs to others; the books keep what was used."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from app.domain import budgets, catalog, identity, keys, providers, sessions, subscriptions, teams, tokens
from app.domain.errors import Conflict, NotFound
from app.domain.teams import Team
from app.extensions import db, transaction
from app.ledger import posting
from app.ledger.entries import UsageEntry
from app.workflows import offboarding
from tests.house import People, make_model
from tests.ledger.books import event


@pytest.fixture
def team(people: People) -> Team:
    """The owner's team with the stranger as a member, subscribed to `small` by the stranger."""
    made = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    transaction(teams.put_member, made, people.stranger, by=people.owner, role="member")
    model = transaction(make_model, people.admin)
    transaction(subscriptions.request, people.stranger, model, by=people.stranger, team=made)
    return made


def test_a_deleted_person_can_do_nothing_any_more_and_the_books_stay(people: People) -> None:
    owner = people.owner
    id, model = owner.id, transaction(make_model, people.admin)
    transaction(subscriptions.request, owner, model, by=owner)
    transaction(keys.create, owner, by=owner, name="app")
    transaction(budgets.set_budget, "user", id, by=people.admin, limit="1")
    token = transaction(tokens.grant, owner).access_token
    session = sessions.begin(id, address="", agent="")
    posting.post([event(person_id=id)])
    transaction(offboarding.delete, owner, by=people.admin)
    assert identity.by_id(id) is None
    assert (sessions.find(session), tokens.verify(token), budgets.find("user", id)) == (None, None, None)
    for table in (keys.ApiKey, subscriptions.Subscription):
        assert db.session.scalar(select(func.count()).select_from(table)) == 0
    assert db.session.scalar(select(func.count()).select_from(UsageEntry)) == 1


def test_who_is_needed_stays_whole(people: People, team: Team) -> None:
    session = sessions.begin(people.owner.id, address="", agent="")
    for person in (people.admin, people.owner):  # the last admin; the last owner of a team with others in it
        with pytest.raises(Conflict):
            transaction(offboarding.delete, person, by=people.admin)
    assert identity.named("owner") is not None
    assert teams.role_in(people.owner, team.id) == "owner"
    assert sessions.find(session) is not None


def test_who_leaves_a_team_takes_no_access_of_it_along(people: People, team: Team) -> None:
    ours, _ = transaction(keys.create, people.stranger, by=people.stranger, name="ours", team=team)
    other, _ = transaction(keys.create, people.owner, by=people.owner, name="other", team=team)
    private, _ = transaction(keys.create, people.stranger, by=people.stranger, name="private")
    transaction(offboarding.leave, team, people.stranger, by=people.owner)
    assert [key.revoked_at is not None for key in (ours, other, private)] == [True, False, False]
    assert teams.role_in(people.stranger, team.id) is None
    (found,) = db.session.scalars(subscriptions.of_team(team))
    assert (found.person.username, found.status) == ("owner", "active"), "the team keeps it, and an owner stands for it"
    with pytest.raises(NotFound):
        subscriptions.get_visible(people.stranger, found.id)


def test_a_dissolved_team_leaves_neither_keys_nor_budgets(people: People, team: Team) -> None:
    key, _ = transaction(keys.create, people.stranger, by=people.stranger, name="ours", team=team)
    (found,) = db.session.scalars(subscriptions.of_team(team))
    for kind, id in (("team", team.id), ("subscription", found.id), ("user", people.owner.id)):
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="1")  # type: ignore[arg-type]
    transaction(offboarding.dissolve, team, by=people.owner)
    db.session.refresh(found)
    assert (key.revoked_at is not None, found.status) == (True, "cancelled")
    assert [(one.scope_kind, one.scope_id) for one in db.session.scalars(budgets.all_())] == [("user", people.owner.id)]
    with pytest.raises(NotFound):
        teams.get_visible(people.admin, team.id)


def test_a_provider_goes_when_nothing_needs_it(people: People) -> None:
    models = [transaction(make_model, None, f"model-{number}") for number in range(5)]
    provider = models[0].deployments[0].provider
    with pytest.raises(Conflict, match=r"model-0, model-1, model-2 and 2 more"):
        transaction(offboarding.withdraw, provider, by=people.admin)
    for model in models:
        transaction(catalog.update_model, model, by=None, deployments=[])
    transaction(offboarding.withdraw, provider, by=people.admin)
    assert db.session.scalars(providers.search()).all() == []
