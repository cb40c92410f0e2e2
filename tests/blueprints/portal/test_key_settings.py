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
    page = browser.get(f"/keys/{id}/rotation").text
    once = re.search(r'name="once"[^>]*value="([^"]+)"', page)
    assert once
    answer = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once[1], overlap_s=overlap_s)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    [text] = set(KEY.findall(answer.text))
    again = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once[1], overlap_s=overlap_s)
    assert (again.status_code, set(KEY.findall(again.text))) == (201, {text})
    for name in list(wire.scan_iter("made-text:*")):
        wire.delete(name)  # a minute later
    again = browser.post(f"/keys/{id}/rotation", page=f"/keys/{id}/rotation", once=once[1], overlap_s=overlap_s)
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
    page = owner.get(f"/keys/{id}/settings").text
    for shown in ('value="app"', "the desk</textarea>", 'value="60"', 'value="5"', 'value="Europe/Berlin"'):
        assert shown in page, shown
    assert re.search(r'value="small" checked', page)
    same = {
        "note": "the desk", "reach": "some", "models": "small", "rpm": "60", "budget": "5.00", "period": "week",
        "timezone": "Europe/Berlin",
    }  # fmt: skip
    assert change(owner, id, **same) == 303
    assert actions(id) == ["budget.set", "key.create"]
    assert change(owner, id, **{**same, "thresholds": "75"}) == 303
    assert actions(id) == ["budget.set", "budget.set", "key.create"]
    assert 'value="75"' in owner.get(f"/keys/{id}/settings").text
    same["thresholds"] = "75"
    assert change(owner, id, **{**same, "name": "renamed", "rpm": "7", "routing": "fixed"}) == 303
    key = found(id)
    assert (key.name, key.rpm, key.routing, key.models, key.expires_at) == ("renamed", 7, "fixed", ["small"], end)
    assert wire.hget(store.scope("key", id), "rpm") == "7"
    assert change(owner, id, lifetime="never") == 303
    key = found(id)
    assert (key.models, key.rpm, key.note, key.expires_at) == ([], None, None, None)
    assert budgets.find("key", id) is None
    history = owner.get(f"/keys/{id}").text.split("History of this key")[1].split("</ol>")[0]
    assert "Budget removed" in history
    assert "requests a minute: 60 → 7" in history
    assert "by owner" in history


def test_the_history_of_a_key_says_in_words_what_was_asked_for(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    id, _ = make_key(people.owner, budget={"limit": "5", "period": "week", "thresholds": [70]})
    payer = payers.named("key", id)
    asked = transaction(budget_requests.ask, payer, by=people.owner, amount="2", lasting=False, reason="A report.")
    transaction(budget_requests.decide, asked, "deny", by=people.admin, reason="No.")
    history = signed_in("owner").get(f"/keys/{id}").text.split("History of this key")[1].split("</ol>")[0]
    for words in ("Increase denied", "Increase requested", "amount: 2; each period: no", "alerts at: "):
        assert words in history
    assert "budget." not in history


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
    page = owner.get(f"/keys/{id}").text
    assert "This key has expired" in page
    assert f"/keys/{id}/rotation" not in page
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
    secrets = owner.get(f"/keys/{id}").text.split('id="secrets"')[1].split("</table>")[0]
    assert "Still used" not in secrets
    assert "End now" in secrets
    use(people.owner, small, clock.now_ms(), key_id=id, secret_id=former.id)
    page = owner.get(f"/keys/{id}").text
    assert "Still used" in page.split('id="secrets"')[1].split("</table>")[0]
    assert text not in page
    assert "An earlier text still works" in owner.get(f"/keys/{id}/rotation").text

    end = f"/keys/{id}/secrets/{former.id}/end"
    assert former.masked in owner.get(end).text
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
    page = owner.get(f"/keys/{id}").text
    assert "This key is paused" in page
    assert "Paused" in owner.get("/keys?status=paused").text
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
    page = signed_in("auditor").get(f"/keys/{id}").text
    reason = "Your role may read everybody’s keys and change none of them."
    assert page.count(f'aria-disabled="true" title="{reason}"') == 6
    for act in (*ACTS, "secrets"):
        assert f"/keys/{id}/{act}" not in page


def test_a_revoked_key_has_nothing_to_do(people: People, signed_in: Callable[[str], Browser]) -> None:
    id, _ = make_key(people.owner)
    transaction(keys.revoke, found(id), by=people.owner)
    owner = signed_in("owner")
    page = owner.get(f"/keys/{id}").text
    for act in ACTS:
        assert f"/keys/{id}/{act}" not in page
        assert owner.get(f"/keys/{id}/{act}").status_code == 303
    answer = owner.post(f"/keys/{id}/settings", page="/keys", **{**AS_IT_IS, "name": "other"})
    assert answer.status_code == 422
    assert found(id).name == "app"
    assert owner.post(f"/keys/{id}/rotation", page="/keys", overlap_s="0").status_code == 422
    assert len(found(id).secrets) == 1
