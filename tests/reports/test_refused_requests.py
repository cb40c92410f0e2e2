"""Why a request was refused: found by those it concerns, for as long as it is kept."""

from __future__ import annotations

import msgspec
import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import current, store
from app.domain import keys, teams
from app.domain.person import Person
from app.extensions import transaction
from app.metering.usage import Refusal
from app.reports import refused_requests
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    make_person,
    migrated,
    people,
    quick_hashes,
    wire,
)


def refuse(wire: redis.Redis, person: Person, **fields: str) -> Refusal:  # noqa: F811
    refusal = Refusal(
        request_id="r-1", at_ms=1, person_id=person.id, model="small", endpoint="/v1/chat/completions", reason="budget",
        scope_kind="user", scope_id="x", scope_shown="x", message="no", **{"key_id": None, **fields},
    )  # fmt: skip
    wire.set(store.refusal(refusal.request_id), msgspec.json.encode(refusal))
    return refusal


def readers(*among: Person) -> list[str]:
    return [person.username for person in among if refused_requests.find(person, "r-1") is not None]


def test_a_refusal_concerns_its_person_and_who_sees_everything(people: People, wire: redis.Redis) -> None:  # noqa: F811
    told = refuse(wire, people.owner)
    everybody = (people.owner, people.stranger, people.admin, people.auditor)
    assert readers(*everybody) == ["owner", "admin", "auditor"]
    assert refused_requests.find(people.owner, "r-1") == told
    assert refused_requests.find(people.owner, "r-2") is None


def test_a_refusal_of_a_team_concerns_its_owners_and_not_its_members(people: People, wire: redis.Redis) -> None:  # noqa: F811
    team = transaction(teams.create, by=people.stranger, name="Research", rpm=None)
    member = transaction(make_person, "member")
    transaction(teams.put_member, team, member, by=people.stranger, role="member")
    refuse(wire, people.owner, team_id=team.id)
    assert readers(people.owner, people.stranger, member) == ["owner", "stranger"]


def test_a_refusal_concerns_whose_key_it_was(people: People, wire: redis.Redis) -> None:  # noqa: F811
    key, _ = transaction(keys.create, people.stranger, by=people.stranger, name="app")
    refuse(wire, people.owner, key_id=key.id)
    assert readers(people.owner, people.stranger) == ["owner", "stranger"]
    refuse(wire, people.owner, key_id="a key that is gone")
    assert readers(people.owner, people.stranger) == ["owner"]


@pytest.mark.parametrize("record", ["", "not JSON", "{}", '{"request_id": 5}'])
def test_a_record_that_cannot_be_read_is_none(people: People, wire: redis.Redis, record: str) -> None:  # noqa: F811
    wire.set(store.refusal("r-1"), record)
    assert refused_requests.find(people.admin, "r-1") is None


def test_without_redis_nothing_is_known(inside: Flask, people: People, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(current, "redis", lambda: gone)
    assert refused_requests.find(people.admin, "r-1") is None
