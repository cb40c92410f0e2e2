"""What is compared of people, teams and keys here, and what their verbs refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.clock import now
from app.domain import catalog, identity, keys, providers, subscriptions, teams
from app.domain.catalog import DeploymentSpec
from app.domain.errors import Conflict, Invalid
from app.extensions import db, transaction
from app.litellm.plan import Change, Link, Step
from app.workflows import litellm_things as things
from tests.house import People

IDS: Any = {"users": {}, "teams": {}}


@pytest.fixture(autouse=True)
def world(people: People, inside: Any) -> None:
    """Four people."""


def step(
    entity: Any, act: Any, *, portico_id: str | None = None, name: str = "x", side: Any = "portico", **values: Any
) -> Step:
    changes = tuple(Change(name=one, portico=value, litellm=value, last=None) for one, value in values.items())
    return Step(entity=entity, act=act, side=side, name=name, portico_id=portico_id, litellm_id="l", changes=changes)


def written(found: Step) -> str | None:
    return transaction(lambda: things.write_here(found, IDS, by=identity.named("admin")))


def new_model(name: str) -> None:
    echo = providers.create(by=None, name="Echo", kind="echo", config={})
    served = [DeploymentSpec(provider_id=echo.id, upstream_model=name)]
    catalog.create_model(by=None, name=name, restricted=True, deployments=served, capabilities=["chat"])


def test_the_first_admin_is_left_alone_and_who_has_no_address_stays() -> None:
    transaction(lambda: identity.update(identity.named("owner"), by=None, email="Owner@example.org"))
    found = {thing.name: thing for thing in things.users()}
    assert "admin" not in found
    assert found["owner"].matches == ("email:owner@example.org", "name:owner")
    assert (found["owner"].stays, found["stranger"].stays is None) == (None, False)


def test_a_revoked_key_is_gone() -> None:
    owner = identity.named("owner")
    transaction(lambda: keys.create(owner, by=owner, name="app"))
    [key] = things.all_keys({owner.id: "owner"}, {})
    assert key.fields["owner"] == "owner"
    transaction(lambda: keys.revoke(db.session.get(keys.ApiKey, key.id), by=owner))  # type: ignore[arg-type]
    assert not things.all_keys({owner.id: "owner"}, {})


KEY = {"key_alias": "app", "owner": "owner", "team": None, "blocked": False}


def test_a_pulled_key_gets_access_to_its_models_and_never_to_all() -> None:
    transaction(lambda: new_model("small"))
    id = written(step("keys", "create", **KEY, models=["gone", "small"]))
    key = db.session.get(keys.ApiKey, id)
    assert key is not None
    assert key.models == ["small"]
    assert subscriptions.live(key.person, catalog.model("small")).status == "active"  # type: ignore[union-attr]
    with pytest.raises(Conflict, match="None of the key's models"):
        written(step("keys", "create", **KEY, models=["gone"]))


def test_a_key_changes_its_values_but_not_its_owner() -> None:
    owner = identity.named("owner")
    id = transaction(lambda: keys.create(owner, by=owner, name="app")[0].id)
    written(
        step(
            "keys", "update", portico_id=id, key_alias="new", blocked=True, rpm_limit=4, expires="2999-01-01T00:00:00Z"
        )
    )
    key = db.session.get(keys.ApiKey, id)
    assert key is not None
    assert (key.name, key.status, key.rpm, key.expires_at) == ("new", "paused", 4, datetime(2999, 1, 1, tzinfo=UTC))
    with pytest.raises(Invalid, match="owner and team"):
        written(step("keys", "update", portico_id=id, owner="stranger"))


def test_a_deleted_member_may_be_the_last_owner() -> None:
    owner = identity.named("owner")
    team = transaction(lambda: teams.create(by=owner, name="Ours").id)
    written(step("members", "delete", portico_id=f"{team}:{owner.id}"))
    assert teams.role_in(owner, team) is None


def test_litellm_is_told_how_long_a_key_still_lives(set_clock: Any) -> None:
    set_clock(datetime(2027, 1, 1, tzinfo=UTC))
    assert things._duration({"expires": "2027-01-01T01:00:00Z"}) == {"duration": "3600s"}
    assert things._duration({"expires": None}) == {"duration": "-1"}
    assert things._duration({}) == {}
    with pytest.raises(Conflict):
        things._duration({"expires": now().isoformat()})


def test_a_link_has_each_side_as_it_holds_it() -> None:
    found = things.after(
        step("keys", "create", portico_id="p", side="litellm", expires="a"), None, "l", {"expires": "b"}
    )
    assert found == Link(portico_id="p", litellm_id="l", portico={"expires": "a"}, litellm={"expires": "b"})
