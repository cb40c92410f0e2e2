"""What is done with a key that exists: changed, rotated, paused, told apart by its secrets, with a history."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from app import clock, store
from app.clock import now
from app.domain import budgets, keys, payers
from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.extensions import db, transaction
from app.workflows import budget_requests
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, use
from tests.house import People
from tests.page import read

KEY = re.compile(r"sk-[0-9A-Za-z]{46}")
AS_IT_IS = {"name": "app", "reach": "all", "lifetime": "keep", "period": "month", "timezone": "UTC", "routing": "free"}
ACTS = ("settings", "rotation", "pause", "resumption", "revocation")


def found(id: str) -> ApiKey:
    db.session.rollback()
    key = db.session.get(ApiKey, id)
    assert key is not None
    return key


def actions(id: str) -> list[str]:
    return [entry.action for entry in keys.history(found(id))]


def change(browser: Browser, id: str, **form: str) -> int:
    return browser.post(f"/keys/{id}/settings", page=f"/keys/{id}/settings", **{**AS_IT_IS, **form}).status_code


def rotate(browser: Browser, wire: redis.Redis, id: str, overlap_s: str) -> str:
    """The new text of a key."""
    once = browser.page(f"/keys/{id}/rotation").form(f"/keys/{id}/rotation").sends["once"]
    answer = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once, overlap_s=overlap_s)
    [text] = set(KEY.findall(browser.secret_page(answer).text))
    again = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once, overlap_s=overlap_s)
    assert set(KEY.findall(browser.secret_page(again).text)) == {text}
    for name in list(wire.scan_iter("made-text:*")):
        wire.delete(name)  # a minute later
    again = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once, overlap_s=overlap_s)
    assert (again.status_code, again.headers["Location"]) == (303, f"/keys/{id}")
    return text


def test_the_form_shows_what_is_and_changes_only_what_is_given(
    people: People, small: Model, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    subscribe(people.owner, small)
    end = now() + timedelta(days=40)
    id, _ = make_key(
        people.owner, note="the desk", models=["small"], rpm=60, expires_at=end,
        budget={"limit": "5", "period": "week", "timezone": "Europe/Berlin"},
    )  # fmt: skip
    owner = signed_in("owner")
    page = owner.page(f"/keys/{id}/settings")
    zone = "Time zone of the period"
    shown = {label: page.field(label).value for label in ("Name", "Note", "Requests per minute", "Budget", zone)}
    assert shown == {
        "Name": "app", "Note": "the desk", "Requests per minute": "60", "Budget": "5", zone: "Europe/Berlin",
    }  # fmt: skip
    assert page.field("Which models").chosen == ["small"]
    same = {
        "note": "the desk", "reach": "some", "models": "small", "rpm": "60", "budget": "5.00", "period": "week",
        "timezone": "Europe/Berlin",
    }  # fmt: skip
    assert change(owner, id, **same) == 303
    assert actions(id) == ["budget.set", "key.create"]
    assert change(owner, id, **{**same, "thresholds": "75"}) == 303
    assert actions(id) == ["budget.set", "budget.set", "key.create"]
    assert owner.page(f"/keys/{id}/settings").form(f"/keys/{id}/settings").sends["thresholds"] == "75"
    same["thresholds"] = "75"
    assert change(owner, id, **{**same, "name": "renamed", "rpm": "7", "routing": "fixed"}) == 303
    key = found(id)
    assert (key.name, key.rpm, key.routing, key.models, key.expires_at) == ("renamed", 7, "fixed", ["small"], end)
    assert wire.hget(store.scope("key", id), "rpm") == "7"
    assert change(owner, id, lifetime="never") == 303
    key = found(id)
    assert (key.models, key.rpm, key.note, key.expires_at) == ([], None, None, None)
    assert budgets.find("key", id) is None
    history = owner.page(f"/keys/{id}").section("History").items
    assert [step.texts[0].split(" by ")[-1] for step in history] == ["owner"] * len(history)
    assert len([step for step in history if "Budget removed" in step]) == 1
    assert len([step for step in history if "requests per minute: 60 → 7" in step]) == 1


def test_the_history_of_a_key_says_in_words_what_was_asked_for(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    id, _ = make_key(people.owner, budget={"limit": "5", "period": "week", "thresholds": [70]})
    payer = payers.named("key", id)
    asked = transaction(budget_requests.ask, payer, by=people.owner, amount="2", lasting=False, reason="A report.")
    transaction(budget_requests.decide, asked, "deny", by=people.admin, reason="No.")
    section = signed_in("owner").page(f"/keys/{id}").section("History")
    denied, requested, *first = section.items
    assert "Increase denied" in denied
    assert "Increase requested" in requested
    assert "amount: 2; each period: no" in requested
    assert len([step for step in first if "alerts at: " in step]) == 1
    assert "budget." not in section


def test_bad_settings_answer_422_and_change_nothing(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id, _ = make_key(people.owner, rpm=9)
    owner = signed_in("owner")
    for wrong in (
        {"name": ""}, {"rpm": "0"}, {"budget": "lots"}, {"reach": "some", "models": "small"}, {"routing": "wild"},
        {"lifetime": "date"}, {"lifetime": "date", "expires_on": "2001-01-01"}, {"note": "n" * 501},
    ):  # fmt: skip
        assert change(owner, id, **wrong) == 422, wrong
    assert change(owner, id, rpm="9", person_id=people.stranger.id, spent="0", revoked_at="2026-01-01") == 303
    assert actions(id) == ["key.create"]


def test_an_expired_key_lives_again_with_a_later_end(people: People, signed_in: Callable[[str], Browser]) -> None:
    id, _ = make_key(people.owner)
    transaction(lambda: setattr(db.session.get(ApiKey, id), "expires_at", now() - timedelta(days=1)))
    owner = signed_in("owner")
    page = owner.page(f"/keys/{id}")
    assert page.alert.heading == "This key has expired"
    assert f"/keys/{id}/rotation" not in page.ways
    refused = owner.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", overlap_s="0")
    assert refused.status_code == 422
    assert not KEY.search(refused.text)
    assert change(owner, id, lifetime="30") == 303
    assert found(id).status == "active"


def test_rotation_shows_the_new_text_once_and_tells_whether_the_old_one_is_used(
    people: People, small: Model, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    id, first = make_key(people.owner)
    owner = signed_in("owner")
    text = rotate(owner, wire, id, "3600")
    assert text != first
    latest, former = found(id).secrets
    assert (latest.last4, former.last4) == (text[-4:], first[-4:])
    assert former.expires_at is not None
    assert timedelta(minutes=59) < former.expires_at - now() <= timedelta(hours=1)
    end = f"/keys/{id}/secrets/{former.id}/end"
    row = owner.page(f"/keys/{id}").table("Secrets of this key").row(former.masked)
    assert row.cell("Last used") == "never"
    assert row.link("End now").href == end
    use(people.owner, small, clock.now_ms(), key_id=id, secret_id=former.id)
    page = owner.get(f"/keys/{id}")
    texts = read(page).table("Secrets of this key")
    assert texts.row(former.masked).cell("Last used").texts[0] == "Still used"
    assert "Still used" not in texts.row(latest.masked)
    assert text not in page.text
    assert owner.page(f"/keys/{id}/rotation").alert.heading == "An earlier secret still works"

    assert former.masked in owner.page(end).form(end)
    assert owner.post(end, page=end).status_code == 303
    assert found(id).secrets[1].has_ended
    assert owner.get(end).status_code == 303
    refused = owner.post(f"/keys/{id}/secrets/{latest.id}/end", page="/keys")
    assert refused.status_code == 303
    assert not found(id).secrets[0].is_replaced
    assert owner.post(f"/keys/{id}/secrets/nothing/end", page="/keys").status_code == 303


def test_an_overlap_that_is_not_offered_is_refused(people: People, signed_in: Callable[[str], Browser]) -> None:
    id, _ = make_key(people.owner)
    answer = signed_in("owner").post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", overlap_s="99999999")
    assert answer.status_code == 422
    assert len(found(id).secrets) == 1


def test_a_key_is_paused_and_resumed(people: People, signed_in: Callable[[str], Browser], wire: redis.Redis) -> None:
    id, _ = make_key(people.owner)
    record = store.caller(found(id).secrets[0].digest)
    owner = signed_in("owner")
    assert owner.post(f"/keys/{id}/pause", page=f"/keys/{id}/pause").status_code == 303
    assert wire.get(record) is None
    page = owner.page(f"/keys/{id}")
    assert (page.status, page.alert.heading) == ("Paused", "This key is paused")
    assert owner.page("/keys?status=paused").row("app").cell("Status") == "Paused"
    assert owner.get(f"/keys/{id}/pause").status_code == 303
    assert owner.post(f"/keys/{id}/resumption", page=f"/keys/{id}/resumption").status_code == 303
    assert wire.get(record)
    assert owner.get(f"/keys/{id}/resumption").status_code == 303


@pytest.mark.parametrize(("who", "asked", "done"), [("stranger", 404, 404), ("auditor", 403, 403), ("admin", 200, 303)])
def test_who_may_act_on_somebody_elses_key(
    people: People, signed_in: Callable[[str], Browser], who: str, asked: int, done: int
) -> None:
    id, _ = make_key(people.owner)
    transaction(keys.rotate, found(id), by=people.owner, overlap_s=60)
    old = found(id).secrets[1].id
    browser = signed_in(who)
    for act in ("settings", "rotation", "pause", "revocation", f"secrets/{old}/end"):
        assert browser.get(f"/keys/{id}/{act}").status_code == asked, act
    for act in ("pause", "resumption", f"secrets/{old}/end"):
        assert browser.post(f"/keys/{id}/{act}").status_code == done, act
    assert browser.post(f"/keys/{id}/settings", **{**AS_IT_IS, "name": "theirs"}).status_code == done
    assert found(id).name == ("theirs" if who == "admin" else "app")
    assert len(actions(id)) == (6 if who == "admin" else 2)


def test_a_read_only_admin_sees_every_control_disabled_with_the_reason(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    id, _ = make_key(people.owner)
    transaction(keys.rotate, found(id), by=people.owner, overlap_s=60)
    page = signed_in("auditor").page(f"/keys/{id}")
    reason = "Read-only access: your role can’t change keys."
    locked = [button.text for button in page.buttons if button.reason == reason]
    assert locked == ["Change", "Rotate", "Pause", "Revoke", "End now", "Give credit"]
    assert not [way for way in page.ways for act in (*ACTS, "secrets") if f"/keys/{id}/{act}" in way]


def test_a_revoked_key_has_nothing_to_do(people: People, signed_in: Callable[[str], Browser]) -> None:
    id, _ = make_key(people.owner)
    transaction(keys.revoke, found(id), by=people.owner)
    owner = signed_in("owner")
    page = owner.page(f"/keys/{id}")
    for act in ACTS:
        assert f"/keys/{id}/{act}" not in page.ways
        assert owner.get(f"/keys/{id}/{act}").status_code == 303
    answer = owner.post(f"/keys/{id}/settings", page="/keys", **{**AS_IT_IS, "name": "other"})
    assert answer.status_code == 422
    assert found(id).name == "app"
    assert owner.post(f"/keys/{id}/rotation", page="/keys", overlap_s="0").status_code == 422
    assert len(found(id).secrets) == 1
