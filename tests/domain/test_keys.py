"""Keys as the domain keeps them: rotation, pause, and the narrowing of lists."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
import redis

from app import clock, current, directory, store
from app.clock import now
from app.domain import audit, catalog, keys, notices, subscriptions, teams
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.keys import ApiKey
from app.extensions import db, transaction
from app.runtime.sealing import digest
from tests.house import People, make_model

DAY = timedelta(days=1)


def made(people: People, **values: object) -> tuple[ApiKey, str]:
    return transaction(keys.create, people.owner, by=people.owner, **{"name": "app", **values})  # type: ignore[arg-type]


def caller(wire: redis.Redis, text: str) -> directory.CallerRecord | None:
    found = wire.get(store.caller(digest(current.secrets().key_pepper, text)))
    return msgspec.json.decode(str(found), type=directory.CallerRecord) if found else None


def told(people: People) -> list[tuple[str, str | None]]:
    db.session.rollback()
    return [(one.kind, one.href) for one in db.session.scalars(notices.addressed_to(people.owner))]


def change(key: ApiKey, **values: object) -> None:
    """Turns a clock back: what time alone would have made of a key."""

    def work() -> None:
        for name, value in values.items():
            setattr(key, name, value)

    transaction(work)


def test_a_key_names_the_scopes_that_pay_for_its_calls_innermost_first(people: People) -> None:
    owner = people.owner
    team = transaction(teams.create, by=owner, name="Research", rpm=None)
    models = [transaction(make_model, people.admin, name=name) for name in ("small", "large")]
    own = [transaction(subscriptions.request, owner, model, by=owner)[0].id for model in models]
    of_team, _ = transaction(subscriptions.request, owner, models[0], by=owner, team=team)
    personal, _ = made(people)
    narrow, _ = made(people, models=["large"])
    shared, _ = transaction(keys.create, owner, by=owner, name="shared", team=team)
    end = [("user", owner.id, "owner"), ("organisation", "default", "default")]
    assert keys.paying_scopes(personal) == [
        ("key", personal.id, "app"), ("subscription", own[1], "large"), ("subscription", own[0], "small"), *end,
    ]  # fmt: skip
    assert keys.paying_scopes(narrow) == [("key", narrow.id, "app"), ("subscription", own[1], "large"), *end]
    assert keys.paying_scopes(shared) == [
        ("key", shared.id, "shared"), ("subscription", of_team.id, "small"),
        ("member", f"{team.id}:{owner.id}", "owner"), ("team", team.id, "Research"), end[1],
    ]  # fmt: skip


def test_the_portal_and_the_gateway_agree_about_what_a_key_can_call(people: People, wire: redis.Redis) -> None:
    owner = people.owner
    team = transaction(teams.create, by=owner, name="Research", rpm=None)
    small, large, pending, ended = (
        transaction(make_model, people.admin, name=name, restricted=name == "pending")
        for name in ("small", "large", "pending", "ended")
    )
    for model in (small, large, ended):
        found, _ = transaction(subscriptions.request, owner, model, by=owner)
    change(found, expires_at=now() - DAY)  # type: ignore[arg-type]
    transaction(subscriptions.request, owner, pending, by=owner, justification="Later.")
    transaction(subscriptions.request, owner, large, by=owner, team=team)
    for values, models in (({}, ["large", "small"]), ({"models": ["small"]}, ["small"]), ({"team": team}, ["large"])):
        key, text = made(people, **values)
        record = caller(wire, text)
        assert record is not None
        assert [model.name for model in keys.callable_models(key)] == record.callable_models() == models
    transaction(catalog.update_model, large, by=people.admin, status="disabled")
    assert keys.callable_models(key) == []


def test_scopes_say_what_a_key_may_be_used_for(people: People) -> None:
    free, narrow = made(people)[0], made(people, scopes=["chat", "audio"])[0]
    used = ("chat", "rerank", "speech", "embeddings", "images")
    assert [keys.may_use(free, capability) for capability in used] == [True] * 5
    assert [keys.may_use(narrow, capability) for capability in used] == [True, True, True, False, False]


def test_rotation_with_an_overlap_publishes_both_secrets_each_by_its_own_id(people: People, wire: redis.Redis) -> None:
    key, old = made(people)
    new = transaction(keys.rotate, key, by=people.owner, overlap_s=3600)
    latest, former = key.secrets
    records = caller(wire, old), caller(wire, new)
    assert [record and record.secret_id for record in records] == [former.id, latest.id]
    assert records[0] is not None
    assert records[0].expires_ms is not None
    assert abs(records[0].expires_ms / 1000 - clock.now_s() - 3600) < 60
    transaction(keys.end_secret, key, former.id, by=people.owner)
    assert caller(wire, old) is None
    assert caller(wire, new) is not None
    assert former.has_ended
    with pytest.raises(Conflict, match="current secret"):
        transaction(keys.end_secret, key, latest.id, by=people.owner)
    with pytest.raises(NotFound):
        transaction(keys.end_secret, key, "another", by=people.owner)


def test_a_second_rotation_without_overlap_ends_all_that_came_before(people: People, wire: redis.Redis) -> None:
    key, first = made(people)
    second = transaction(keys.rotate, key, by=people.owner, overlap_s=3600)
    third = transaction(keys.rotate, key, by=people.owner)
    assert [caller(wire, text) is not None for text in (first, second, third)] == [False, False, True]


def test_an_expired_key_is_not_rotated(people: People) -> None:
    key, _ = made(people)
    change(key, expires_at=now() - DAY)
    with pytest.raises(Conflict, match="expired"):
        transaction(keys.rotate, key, by=people.owner)


def test_a_paused_key_has_no_record_until_it_is_resumed(people: People, wire: redis.Redis) -> None:
    key, text = made(people)
    transaction(keys.pause, key, by=people.owner)
    assert (key.status, caller(wire, text)) == ("paused", None)
    transaction(keys.rotate, key, by=people.owner, overlap_s=60)
    assert caller(wire, text) is None
    transaction(keys.pause, key, by=people.owner)
    transaction(keys.resume, key, by=people.owner)
    assert key.status == "active"
    assert caller(wire, text) is not None
    assert [entry.action for entry in keys.history(key)] == ["key.resume", "key.rotate", "key.pause", "key.create"]
    assert told(people) == []  # one knows what one does oneself


def test_what_somebody_else_does_to_a_key_is_told_its_owner(people: People) -> None:
    key, _ = made(people)
    for act in (keys.pause, keys.resume, keys.rotate, keys.revoke):
        if act is keys.revoke:
            transaction(keys.update, key, by=people.admin, rpm=5)
        transaction(act, key, by=people.admin)
    page = f"/keys/{key.id}"
    done = ("revoked", "changed", "rotated", "resumed", "paused")
    assert told(people) == [(f"key.{one}", page) for one in done]
    for act in (keys.pause, keys.resume):
        with pytest.raises(Conflict):
            transaction(act, key, by=people.admin)


def test_a_change_that_changes_nothing_leaves_no_trace(people: People) -> None:
    key, _ = made(people, note="for the website")
    before = key.updated_at
    transaction(keys.update, key, by=people.owner, name="app", note=" for the website ")
    assert key.updated_at == before
    assert [entry.action for entry in keys.history(key)] == ["key.create"]
    transaction(keys.update, key, by=people.owner, note="")
    assert key.note is None
    assert keys.history(key)[0].detail == {"before": {"note": "for the website"}, "after": {"note": None}}
    with pytest.raises(Invalid, match="500"):
        transaction(keys.update, key, by=people.owner, note="n" * 501)


def test_the_history_is_the_keys_own(people: People) -> None:
    key, _ = made(people, budget={"limit": "5", "period": "day"})
    other, _ = made(people, name=key.id)  # a name that looks like the other's id
    assert {entry.action for entry in keys.history(key)} == {"key.create", "budget.set"}
    assert {entry.object_id for entry in keys.history(key)} == {key.id}
    assert db.session.scalar(audit.entries(about=other.id))


@pytest.mark.parametrize("status", keys.STATUSES)
def test_lists_and_keys_agree_about_a_status(people: People, status: str) -> None:
    for name in keys.STATUSES:
        key, _ = made(people, name=name)
        change(
            key,
            **{
                "active": {},
                "paused": {"paused_at": now()},
                "expired": {"expires_at": now() - DAY, "paused_at": now()},
                "revoked": {"revoked_at": now(), "expires_at": now() - DAY, "paused_at": now()},
            }[name],
        )
    found = db.session.scalars(keys.search(people.owner, status=status)).all()
    assert [(key.name, key.status) for key in found] == [(status, status)]


def test_a_list_finds_by_name_note_owner_and_what_is_shown_of_the_text(people: People) -> None:
    _, text = made(people, name="alpha", note="the website")
    made(people, name="beta")

    def names(search: str) -> list[str]:
        return [one.name for one in db.session.scalars(keys.filtered(keys.all_(), search=search))]

    assert names("ALPH") == names("website") == names(text) == names(text[:8]) == names(text[-4:]) == ["alpha"]
    assert names("owner") == ["beta", "alpha"]
    assert names("a%") == names("nothing") == []


def test_a_list_narrowed_to_a_model_holds_what_may_call_it(people: People) -> None:
    for name in ("small", "small-2"):
        transaction(make_model, people.admin, name)
        transaction(subscriptions.request, people.owner, catalog.model(name), by=people.owner)
    made(people, name="named", models=["small"])
    made(people, name="other", models=["small-2"])
    made(people, name="all")
    transaction(keys.create, people.stranger, by=people.stranger, name="all of a stranger")
    found = db.session.scalars(keys.filtered(keys.all_(), model="small"))
    assert [key.name for key in found] == ["all", "named"]


def test_a_key_for_models_that_are_not_subscribed_is_refused(people: People) -> None:
    transaction(make_model, people.admin)
    with pytest.raises(Invalid) as refused:
        transaction(keys.create, people.owner, by=people.owner, name="a", models=["small"])
    assert refused.value.field == "models"
