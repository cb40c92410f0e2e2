"""Who is deprovisioned loses what is theirs; what they made for a team goes on under somebody else."""

from __future__ import annotations

import pytest
import redis
from flask import Flask

from app import current, store
from app.domain import identity, keys, sessions, teams, tokens
from app.domain.errors import Conflict
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.runtime.sealing import digest
from app.workflows import provisioning
from tests.house import People, make_person


def team_of(*names: str) -> Team:
    """A team whose members are these people, the first of them its owner."""
    first, *others = [identity.find(name) or make_person(name) for name in names]
    team = teams.create(by=first, name="Research")
    for person in others:
        teams.put_member(team, person, by=None)
    return team


def key_in(team: Team, person: Person) -> str:
    return keys.create(person, by=person, name="ours", team=team)[0].id


def owner_of(key_id: str) -> str:
    key = db.session.get(keys.ApiKey, key_id)
    assert key is not None
    assert key.revoked_at is None
    return key.person.username


@pytest.mark.parametrize(
    ("members", "heir"),
    [(("lead", "first", "owner"), "lead"), (("owner", "first", "second"), "first"), (("owner",), "admin")],
)
def test_a_team_s_key_goes_on_under_an_owner_else_the_oldest_member_else_an_admin(
    people: People, members: tuple[str, ...], heir: str
) -> None:
    def work() -> str:
        team = team_of(*members)
        id = key_in(team, identity.named("owner"))
        provisioning.deactivate(identity.named("owner"))
        return id

    assert owner_of(transaction(work)) == heir


def test_who_is_deactivated_loses_keys_tokens_and_sessions_for_good(inside: Flask, people: People) -> None:
    key_id = transaction(lambda: keys.create(people.owner, by=people.owner, name="mine")[0].id)
    short = transaction(lambda: tokens.grant(people.owner))
    long_lived = transaction(lambda: tokens.issue(people.owner, by=people.admin))
    sessions.begin(people.owner.id, address="", agent="")
    transaction(lambda: provisioning.deactivate(identity.named("owner")))
    assert sessions.owned_by(people.owner.id) == []
    transaction(lambda: identity.update(identity.named("owner"), by=None, disabled=False))
    key = db.session.get(keys.ApiKey, key_id)
    assert key is not None
    assert key.revoked_at is not None
    assert tokens.verify(short.access_token) is None
    assert tokens.verify(long_lived.access_token) is None
    assert transaction(lambda: tokens.refresh(short.refresh_token or "")) is None


def test_v1_knows_the_keys_of_who_is_deactivated_no_more_and_the_team_s_under_its_new_owner(
    people: People, wire: redis.Redis
) -> None:
    def work() -> tuple[str, str]:
        person, team = identity.named("owner"), team_of("lead", "owner")
        _, text = keys.create(person, by=person, name="mine")
        _, team_text = keys.create(person, by=person, name="ours", team=team)
        return text, team_text

    mine, ours = transaction(work)
    assert record(wire, mine)
    assert "owner" in str(record(wire, ours))
    transaction(lambda: provisioning.deactivate(identity.named("owner")))  # publication follows the commit
    assert record(wire, mine) is None
    assert '"lead"' in str(record(wire, ours))


def record(wire: redis.Redis, text: str) -> object:
    return wire.get(store.caller(digest(current.secrets().key_pepper, text)))


def test_the_last_admin_is_neither_deactivated_nor_deleted(people: People) -> None:
    for act in (provisioning.deactivate, provisioning.delete_person):
        with pytest.raises(Conflict):
            transaction(lambda act=act: act(identity.named("admin")))


def test_a_deleted_owner_leaves_the_team_to_its_oldest_member(people: People) -> None:
    team_id = transaction(lambda: team_of("owner", "first", "second").id)
    transaction(lambda: provisioning.delete_person(identity.named("owner")))
    team = db.session.get(Team, team_id)
    assert team is not None
    assert {one.person.username: one.role for one in team.members} == {"first": "owner", "second": "member"}


def test_scim_takes_out_owners_only_if_it_made_them_members(people: People) -> None:
    def work() -> list[str]:
        team = team_of("owner", "member")
        provisioning.change_team(team, {"displayName": "Research", "members": [{"value": people.stranger.id}]})
        teams.put_member(team, people.stranger, by=None, role="owner")
        provisioning.change_team(team, {"displayName": "Research", "members": []})
        return [one.person.username for one in team.members]

    assert transaction(work) == ["owner"]


def test_a_team_with_keys_outlives_its_group(people: People) -> None:
    def work(with_key: bool) -> str:
        team = provisioning.create_team(
            {"displayName": "G", "externalId": "g", "members": [{"value": people.owner.id}]}
        )
        if with_key:
            key_in(team, people.owner)
        id = team.id
        provisioning.delete_team(team)
        return id

    assert db.session.get(Team, transaction(work, False)) is None
    team = db.session.get(Team, transaction(work, True))
    assert team is not None
    assert (team.members, team.external_id) == ([], None)
