from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app import current
from app.domain import audit, identity, sync
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.sync import SetElsewhere, SyncConnection, SyncPlan, SyncStep
from app.extensions import db, transaction
from app.litellm.plan import DEFAULTS, Link, Policy
from config import LiteLLM
from tests.house import People

URL, KEY = "http://litellm.example:4000", "sk-a-long-master-key"


def connect(**values: Any) -> sync.Connection:
    given = {"url": URL, "master_key": KEY} | values
    return transaction(lambda: sync.connect(by=identity.named("admin"), **given))


@pytest.fixture(autouse=True)
def world(people: People, inside: Any) -> None:
    """An admin, and no LiteLLM."""


def test_the_master_key_is_sealed_and_masked() -> None:
    assert connect().hint == "••••-key"
    row = db.session.get(SyncConnection, sync.ONE)
    assert row is not None
    assert row.sealed is not None
    assert KEY not in row.sealed
    found = sync.connection()
    assert found is not None
    assert found.master_key == KEY
    assert KEY not in str([entry.detail for entry in db.session.scalars(audit.entries())])


@pytest.mark.parametrize("key", [None, "", "••••-key"])
def test_the_key_stays_for_the_same_origin_only(key: str | None) -> None:
    connect()
    assert connect(url=f"{URL}/proxy", master_key=key).master_key == KEY
    for other in ("http://litellm.example:4001", "https://litellm.example:4000", "http://other.example:4000"):
        with pytest.raises(Invalid) as refused:
            connect(url=other, master_key=key)
        assert refused.value.field == "master_key"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"url": ""}, "url"),
        ({"url": "litellm.example"}, "url"),
        ({"url": "ftp://litellm.example"}, "url"),
        ({"url": "http://169.254.169.254"}, "url"),
        ({"master_key": None}, "master_key"),
        ({"master_key": "sk\n"}, "master_key"),
        ({"interval_minutes": -1}, "interval_minutes"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_can_be_no_connection_is_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        connect(**values)
    assert refused.value.field == field


def test_the_settings_win_and_cant_be_changed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = msgspec.structs.replace(current.config(), litellm=LiteLLM(url=URL, master_key=KEY))
    monkeypatch.setattr(current, "config", lambda: changed)
    found = sync.connection()
    assert found is not None
    assert (found.url, found.is_set_elsewhere) == (URL, True)
    with pytest.raises(SetElsewhere):
        connect()
    with pytest.raises(SetElsewhere):
        transaction(lambda: sync.forget(by=identity.named("admin")))


def test_to_disconnect_forgets_links_and_plans() -> None:
    connect()
    transaction(lambda: sync.keep_link("users", Link(portico_id="p", litellm_id="l")))
    transaction(lambda: db.session.add(SyncPlan(id="plan")))
    transaction(lambda: sync.forget(by=identity.named("admin")))
    assert sync.connection() is None
    assert not sync.links("users")
    with pytest.raises(NotFound):
        sync.plan("plan")


def test_policies_have_defaults_and_models_are_never_pushed() -> None:
    assert sync.policies() == DEFAULTS
    changed = Policy(create="pull", conflict="merge", delete="both")
    found = transaction(lambda: sync.set_policies({"users": changed}, by=identity.named("admin")))
    assert found == DEFAULTS | {"users": changed}
    for create in ("push", "both"):
        models = Policy(create=create)  # type: ignore[arg-type]
        with pytest.raises(Invalid) as refused:
            transaction(lambda models=models: sync.set_policies({"models": models}, by=identity.named("admin")))
        assert refused.value.field == "models.create"


def conflict(**values: Any) -> str:
    def work() -> str:
        sync.keep_link("users", Link(portico_id="p", litellm_id="l"))
        db.session.add(SyncPlan(id="plan", state="ready"))
        fields = [{"name": "rpm_limit", "portico": 1, "litellm": 2, "last": None}]
        given = {"act": "conflict", "portico_id": "p", "litellm_id": "l", "fields": fields} | values
        db.session.add(SyncStep(id="step", plan_id="plan", position=0, entity="users", side=None, name="ada", **given))
        return "step"

    return transaction(work)


def test_a_decision_is_kept_for_the_next_plan() -> None:
    id = conflict()
    assert [step.id for step in db.session.scalars(sync.conflicts())] == [id]
    transaction(lambda: sync.decide(id, {"rpm_limit": "litellm"}, by=identity.named("admin")))
    assert sync.links("users")["p", "l"].decided == {"rpm_limit": "litellm"}
    assert not db.session.scalars(sync.conflicts()).all()


def test_what_is_no_conflict_cant_be_decided() -> None:
    id = conflict()
    admin = identity.named("admin")
    for fields in ({}, {"other": "litellm"}, {"rpm_limit": "nobody"}):
        with pytest.raises(Invalid):
            sync.decide(id, fields, by=admin)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        sync.decide("none", "litellm", by=admin)


def test_two_of_one_name_cant_be_decided() -> None:
    id = conflict(portico_id=None, reason="Several things have this name.")
    with pytest.raises(Conflict, match="Several"):
        sync.decide(id, "litellm", by=identity.named("admin"))


def test_the_master_key_follows_a_rotation_of_the_encryption_key() -> None:
    connect()
    row = db.session.get(SyncConnection, sync.ONE)
    assert row is not None
    before = row.sealed
    transaction(sync.seal_anew)
    row = db.session.get(SyncConnection, sync.ONE)
    assert row is not None
    assert row.sealed != before
    found = sync.connection()
    assert found is not None
    assert found.master_key == KEY
