"""What is committed reaches the noticeboard, at once or a second later, and an old state never covers a new one."""

import threading
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from sqlalchemy import func, select

from app import current, directory, store
from app.domain import budgets, catalog, identity, keys, subscriptions, teams, tokens
from app.domain.changes import PendingChange
from app.extensions import db, transaction
from app.gateway.endpoints import ENDPOINTS
from app.runtime.sealing import digest
from app.workflows import publication
from tests.house import People, make_model


def _caller(wire: redis.Redis, text: str) -> directory.CallerRecord | None:
    found = wire.get(store.caller(digest(current.secrets().key_pepper, text)))
    return msgspec.json.decode(str(found), type=directory.CallerRecord) if found else None


def _document(wire: redis.Redis) -> directory.Directory:
    return msgspec.json.decode(str(wire.get(store.DIRECTORY)), type=directory.Directory)


def _pending() -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).select_from(PendingChange)) or 0


@pytest.fixture
def key(people: People) -> tuple[keys.ApiKey, str]:
    return transaction(keys.create, people.owner, by=people.owner, name="app")


class Away:
    """A Redis that refuses every connection."""

    def __getattr__(self, name: str) -> Any:
        raise redis.ConnectionError("away")


def test_each_change_publishes_a_new_version_of_the_directory(people: People, wire: redis.Redis) -> None:
    before = wire.get(store.DIRECTORY_VERSION)
    transaction(make_model, people.admin)
    document = _document(wire)
    assert document.version == wire.get(store.DIRECTORY_VERSION) != before
    assert [model.name for model in document.models] == ["small"]
    price = document.models[0].price_at(2**52)
    assert price is not None and price.rates["input_per_mtok"] == 1_000_000_000
    assert {endpoint.path for endpoint in document.endpoints} == {one.path for one in ENDPOINTS.values()}


def test_a_change_while_redis_is_away_arrives_when_it_is_back(
    people: People, key: tuple[keys.ApiKey, str], wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publication.catch_up()
    assert _pending() == 0
    with monkeypatch.context() as patch:
        patch.setattr(current, "redis", lambda: Away())
        transaction(keys.revoke, key[0], by=people.owner)
        with pytest.raises(redis.ConnectionError):
            publication.catch_up()
    assert _caller(wire, key[1]) is not None
    assert _pending() == 1
    assert publication.catch_up() == 1
    assert _caller(wire, key[1]) is None
    assert (_pending(), publication.catch_up()) == (0, 0)


def test_a_redis_that_lost_everything_is_told_everything_again(
    people: People, key: tuple[keys.ApiKey, str], wire: redis.Redis
) -> None:
    transaction(make_model, people.admin)
    token = transaction(tokens.grant, people.owner).access_token
    transaction(budgets.set_budget, "organisation", "default", by=None, limit="5", period="day")
    names = sorted(name for name in wire.scan_iter(match="*") if "publication" not in name)
    wire.flushall()
    # An ordinary change does not pretend that the noticeboard is whole.
    transaction(identity.update, people.owner, by=None, rpm=5)
    assert wire.get(store.DIRECTORY_VERSION) is None
    publication.catch_up()
    assert sorted(name for name in wire.scan_iter(match="*") if "publication" not in name) == names
    assert _caller(wire, key[1]) is not None
    assert _caller(wire, token) is not None
    assert wire.hgetall(store.scope("user", people.owner.id))["rpm"] == "5"
    assert wire.hgetall(store.scope("organisation", "default")) == {"limit": "5000000000", "spec": "day|UTC"}


def test_a_stale_copy_of_redis_does_not_revive_a_caller(people: People, wire: redis.Redis) -> None:
    wire.set(store.caller("0" * 64), "{}")
    publication.publish_all()
    assert wire.get(store.caller("0" * 64)) is None


def test_an_old_state_never_covers_a_newer_one(
    people: People, key: tuple[keys.ApiKey, str], wire: redis.Redis, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication that read before a revocation and writes after it has to read again."""
    read, started, go_on = publication._read, threading.Event(), threading.Event()

    def slow_read(session: Any, changes: Any) -> Any:
        notices = read(session, changes)
        if threading.current_thread().name == "slow":
            started.set()
            go_on.wait(10)
        return notices

    monkeypatch.setattr(publication, "_read", slow_read)

    key_id = key[0].id

    def publish_slowly() -> None:
        with app.app_context():
            publication.publish({("key", key_id)})

    thread = threading.Thread(target=publish_slowly, name="slow")
    thread.start()
    assert started.wait(10)
    transaction(keys.revoke, key[0], by=people.owner)
    assert _caller(wire, key[1]) is None
    go_on.set()
    thread.join(10)
    assert _caller(wire, key[1]) is None


def test_a_rolled_back_change_is_not_published(people: People, wire: redis.Redis) -> None:
    before = wire.get(store.DIRECTORY_VERSION)

    def fails() -> None:
        make_model(people.admin)
        db.session.flush()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        transaction(fails)
    transaction(identity.update, people.owner, by=None, rpm=1)
    assert wire.get(store.DIRECTORY_VERSION) == before
    assert _document(wire).models == ()


def test_a_callers_models_follow_its_subscriptions_and_its_own_list(people: People, wire: redis.Redis) -> None:
    for name in ("a", "b"):
        transaction(make_model, people.admin, name)
    owner = people.owner
    ids = {name: transaction(subscriptions.request, owner, catalog.model(name), by=owner)[0].id for name in ("a", "b")}
    _, wide = transaction(keys.create, owner, by=owner, name="wide")
    _, narrow = transaction(keys.create, owner, by=owner, name="narrow", models=["b"])
    assert _caller(wire, wide).models == ids  # type: ignore[union-attr]
    assert _caller(wire, narrow).models == {"b": ids["b"]}  # type: ignore[union-attr]
    found = subscriptions.get_visible(owner, ids["b"])
    transaction(subscriptions.decide, found, "suspend", by=people.admin)
    assert _caller(wire, narrow).models == {}  # type: ignore[union-attr]
    transaction(subscriptions.decide, found, "resume", by=people.admin)
    assert _caller(wire, narrow).models == {"b": ids["b"]}  # type: ignore[union-attr]
    transaction(subscriptions.cancel, found, by=owner)
    assert _caller(wire, wide).models == {"a": ids["a"]}  # type: ignore[union-attr]


def test_taking_the_scope_of_calling_takes_it_from_keys_too(
    people: People, key: tuple[keys.ApiKey, str], wire: redis.Redis
) -> None:
    transaction(identity.update, people.owner, by=people.admin, scopes=["portal"])
    assert _caller(wire, key[1]) is None
    transaction(identity.update, people.owner, by=people.admin, scopes=["portal", "inference"])
    assert _caller(wire, key[1]) is not None
    transaction(identity.update, people.owner, by=people.admin, disabled=True)
    assert _caller(wire, key[1]) is None


@pytest.mark.parametrize(
    ("of_key", "of_team", "allowed"),
    [([], [], None), (["a"], [], ("a",)), ([], ["b"], ("b",)), (["a", "b"], ["b", "c"], ("b",)), (["a"], ["c"], ())],
)
def test_a_key_may_bear_the_tags_that_it_and_its_team_allow(
    people: People, wire: redis.Redis, of_key: list[str], of_team: list[str], allowed: tuple[str, ...] | None
) -> None:
    team = transaction(teams.create, by=people.owner, name="Research")
    _, text = transaction(keys.create, people.owner, by=people.owner, name="ours", team=team, tags=of_key)
    transaction(teams.update, team, by=people.owner, tags=of_team)
    caller = _caller(wire, text)
    assert caller is not None and caller.tags == allowed
