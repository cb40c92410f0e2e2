"""API keys in the portal: made, shown once, seen by their owner alone, listed, revoked."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis

from app import clock, store
from app.clock import now
from app.domain import budgets, keys
from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.extensions import db, transaction
from app.runtime.key_text import is_well_formed
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, use
from tests.house import People
from tests.page import read

KEY = re.compile(r"sk-[0-9A-Za-z]{46}")


def newest(people: People) -> ApiKey:
    db.session.rollback()
    found = db.session.scalar(keys.owned_by(people.owner).limit(1))
    assert found is not None
    return found


def once_of(browser: Browser) -> str:
    return browser.page("/keys/new").form("/keys").sends["once"]


def test_without_a_subscription_the_form_leads_to_the_catalogue(
    people: People, signed_in: Callable[[str], Browser]
) -> None:
    page = signed_in("owner").page("/keys/new")
    assert "Subscribe to a model first" in page.headings
    assert page.fields == []


def test_a_key_is_shown_once_and_a_repeated_form_makes_no_second_one(
    people: People, small: Model, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    subscribe(people.owner, small)
    owner = signed_in("owner")
    form = {
        "once": once_of(owner), "name": "Support chat", "note": "Ask the <desk>", "reach": "some", "models": "small",
        "lifetime": "90",
        "budget": "12.50", "period": "week", "timezone": "Europe/Berlin", "thresholds": "90%, 60",
        "rpm": "60", "tpm": "9000", "max_parallel": "3",
    }  # fmt: skip
    led = owner.post("/keys", page="/keys/new", **form)
    answer = owner.secret_page(led)
    [text] = set(KEY.findall(answer.text))
    assert is_well_formed(text)
    made = read(answer)
    assert (made.heading, made.section("Support chat").codes) == ("Your new key", [text, "http://localhost/v1"])
    assert f"Bearer {text}" in made.code("curl")
    file = made.link("Download .env")
    assert file.node.attributes["download"] == "support-chat.env"
    told = base64.b64decode(file.href.removeprefix("data:text/plain;base64,")).decode()
    assert told == f"PORTICO_API_KEY={text}\nPORTICO_BASE_URL=http://localhost/v1\n"
    key = newest(people)
    assert (key.name, key.models, key.rpm, key.tpm, key.max_parallel) == ("Support chat", ["small"], 60, 9000, 3)
    assert key.expires_at
    assert timedelta(days=89) < key.expires_at - now() <= timedelta(days=90)
    budget = budgets.standing("key", key.id)
    assert (budget.limit_nano, budget.period, budget.timezone) == (12_500_000_000, "week", "Europe/Berlin")
    assert budget.rules is not None
    assert budget.rules.thresholds == (60, 90)

    reloaded = owner.page(led.headers["Location"])  # so does Back
    assert ("This has already been shown" in reloaded.headings, text in reloaded.text) == (True, False)
    assert reloaded.link("Continue").href == f"/keys/{key.id}"

    led = owner.post("/keys", page="/keys/new", **form)  # as a second click does, whose answer is the one seen
    kept = [wire.get(name) or "" for name in (*wire.scan_iter("made*"), *wire.scan_iter("shown-once*"))]
    assert len(kept) == 3
    assert set(KEY.findall(owner.secret_page(led).text)) == {text}
    assert not any(text in value for value in kept)
    for name in list(wire.scan_iter("made-text:*")):
        assert 0 < wire.ttl(name) <= 60
        wire.delete(name)  # a minute later
    again = owner.post("/keys", page="/keys/new", **form)
    assert again.status_code == 303
    assert again.headers["Location"] == f"/keys/{key.id}"
    for page in ("/keys", f"/keys/{key.id}"):
        assert text not in owner.get(page).text
    assert owner.page("/keys").total == "1 result"
    assert owner.page("/keys").rows[0].cell("Name").texts == [
        "Support chat", f"{text[:8]}…{text[-4:]}", "Ask the <desk>",
    ]  # fmt: skip


def test_a_form_sent_four_times_at_once_makes_one_key_and_shows_it_to_all(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    owner = signed_in("owner")
    hidden = owner.page("/keys/new").form("/keys").sends
    form = {
        "csrf_token": hidden["csrf_token"], "once": hidden["once"], "name": "app", "reach": "all", "lifetime": "never",
    }  # fmt: skip
    cookie = owner.client.get_cookie("portico_session")
    assert cookie
    together = threading.Barrier(4)

    def send(_: int) -> tuple[int, set[str]]:
        client = owner.client.application.test_client()
        client.set_cookie("portico_session", cookie.value)
        together.wait(10)
        answer = client.post("/keys", data={**form, "period": "month", "timezone": "UTC"})
        return answer.status_code, set(KEY.findall(client.get(answer.headers["Location"]).text))

    with ThreadPoolExecutor(4) as senders:
        answers = list(senders.map(send, range(4)))
    assert {status for status, _ in answers} == {303}
    assert len(set.union(*(texts for _, texts in answers))) == 1
    db.session.rollback()
    assert len(list(db.session.scalars(keys.owned_by(people.owner)))) == 1


def test_a_form_that_was_refused_may_be_sent_again(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    owner = signed_in("owner")
    form = {"once": once_of(owner), "name": "app", "reach": "all", "lifetime": "never", "period": "month"}
    refused = owner.post("/keys", page="/keys/new", **form, budget="5", timezone="Mars/Olympus")
    assert refused.status_code == 422
    assert owner.post("/keys", page="/keys/new", **form, budget="5", timezone="UTC").status_code == 303


BAD_FORMS: list[tuple[dict[str, str], str]] = [
    ({"name": ""}, "Enter a name."),
    ({"name": " "}, "Enter a name of 1 to 100 characters."),
    ({"note": "n" * 501}, "Use at most 500 characters."),
    ({"reach": "some"}, "Tick at least one model"),
    ({"models": "small"}, "You ticked models but chose all"),
    ({"reach": "some", "models": "lab/guarded"}, "There is no subscription to lab/guarded"),
    ({"lifetime": "date"}, "Enter the last day"),
    ({"lifetime": "date", "expires_on": "2001-01-01"}, "Enter today or a later day."),
    ({"expires_on": "2040-01-01"}, "To use this day"),
    ({"budget": "much"}, "The limit is invalid"),
    ({"budget": "5", "timezone": "Mars/Olympus"}, "Enter a time zone"),
    ({"budget": "5", "thresholds": "50, many"}, "Enter whole percentages, separated by commas."),
    ({"budget": "5", "thresholds": "101"}, "percentages from 1 to 100"),
    ({"rpm": "0"}, "Enter a number of at least 1."),
    ({"tpm": "many"}, "Not a valid integer"),
]


def test_a_bad_form_answers_422_and_keeps_what_was_given(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    owner = signed_in("owner")
    form = {
        "name": "kept",
        "reach": "all",
        "lifetime": "never",
        "period": "month",
        "timezone": "UTC",
        "max_parallel": "7",
    }
    for wrong, words in BAD_FORMS:
        answer = owner.post("/keys", page="/keys/new", **{**form, **wrong})
        assert answer.status_code == 422, wrong
        page = read(answer)
        faults = {field.text: field.error for field in page.fields if field.error}
        assert [words in told for told in faults.values()] == [True], (wrong, faults)
        assert page.field("Concurrent requests").value == "7"
        assert not KEY.search(answer.text)
    assert list(db.session.scalars(keys.owned_by(people.owner))) == []


def test_fields_that_are_not_of_the_form_change_nothing(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    extra = {"person_id": people.admin.id, "routing": "fixed", "spent": "0", "team_id": "x"}
    signed_in("owner").post(
        "/keys", page="/keys/new", name="plain", reach="all", lifetime="never", period="month", **extra
    )
    key = newest(people)
    assert (key.person_id, key.routing, key.team_id) == (people.owner.id, "free", None)


def test_the_list_finds_by_name_and_status(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    assert "No keys yet" in owner.page("/keys").headings
    make_key(people.owner, name="alpha")
    make_key(people.owner, name="beta", budget={"limit": "1", "period": "day"})
    assert owner.page("/keys?q=alp", fragment=True).row_names == ["alpha"]
    assert "No key fits this search." in owner.page("/keys?status=revoked").texts
    active = owner.page("/keys?status=active")
    assert active.row("beta").cell("Spent") == "$0.00 of $1.00 today 0%"
    assert active.row("alpha").cell("Spent") == "$0.00 spent in total, no limit"


def turned_back(key_id: str, days: int) -> None:
    """What a key is after some days."""

    def work() -> None:
        key = db.session.get(ApiKey, key_id)
        assert key is not None
        key.created_at -= timedelta(days=days)
        key.secrets[0].created_at -= timedelta(days=days)

    transaction(work)


def test_the_list_is_narrowed_to_a_model_and_to_what_wants_attention(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    subscribe(people.owner, small)
    ids = {name: make_key(people.owner, name=name)[0] for name in ("fresh", "unused", "used", "ending")}
    make_key(people.owner, name="for small", models=["small"])
    turned_back(ids["unused"], 91)
    turned_back(ids["used"], 181)
    use(people.owner, small, clock.now_ms(), key_id=ids["used"])
    key = db.session.get(ApiKey, ids["ending"])
    transaction(keys.update, key, by=people.owner, expires_at=now() + timedelta(days=6), models=[])
    owner = signed_in("owner")
    assert owner.page("/keys?concern=expiring").row_names == ["ending"]
    assert owner.page("/keys?concern=unused").row_names == ["unused"]
    assert owner.page("/keys?concern=old").row_names == ["used"]
    assert owner.page("/keys?model=small").row_names == ["for small", *reversed(ids)]
    assert owner.page("/keys?model=none").row_names == []
    told = {row.name: row.cell("Status").text for row in owner.page("/keys").rows}
    assert told == {
        "for small": "Active", "ending": "Expires soon", "used": "Active Older than 180 days", "unused": "Active",
        "fresh": "Active",
    }  # fmt: skip


def test_the_list_is_sorted_and_exported_as_it_is_filtered(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for name in ("b", "c", "a"):
        make_key(people.owner, name=name, budget={"limit": "2.50", "period": "day"})
    make_key(people.stranger, name="of a stranger")
    used = newest(people)
    use(people.owner, small, clock.now_ms(), key_id=used.id)
    owner = signed_in("owner")
    assert owner.page("/keys").row_names == ["a", "c", "b"]
    assert owner.page("/keys?sort=name").row_names == ["a", "b", "c"]
    assert owner.page("/keys?sort=-name", fragment=True).row_names == ["c", "b", "a"]
    assert owner.page("/keys?sort=-used").row_names[0] == "a"
    for sort in ("expires", "-expires", "nonsense"):
        assert len(owner.page(f"/keys?sort={sort}").row_names) == 3
    answer = owner.get("/keys?sort=name&format=json&q=b", buffered=True)
    [told] = answer.get_json()["data"]
    assert (told["name"], told["owner"], told["budget"], told["spent"]) == ("b", "owner", "2.5", "0")
    lines = owner.get("/keys?sort=name&format=csv", buffered=True).text.splitlines()
    assert [line.split(",")[1] for line in lines] == ["name", "a", "b", "c"]


def test_the_page_of_a_key_shows_the_numbers_that_enforcement_uses(
    people: People, small: Model, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    subscription = subscribe(people.owner, small)
    key, _ = make_key(people.owner, budget={"limit": "2", "period": "total"})
    budgets.set_budget("subscription", subscription, by=people.admin, limit="10", period="total")
    budgets.set_budget("organisation", "default", by=people.admin, limit="100", period="total")
    db.session.commit()
    wire.hset(store.spent("key", key, "total"), mapping={"spent": 1_700_000_000, "held": 100_000_000})
    use(people.owner, small, clock.now_ms(), key_id=key)
    page = signed_in("owner").page(f"/keys/{key}")
    bounds = page.table("Budgets that bound this key")
    assert bounds.row_names == ["This key", "Subscription to small", "The organisation’s budget"]
    assert bounds.row("This key").cells == {
        "Budget": "This key", "Spent": "$1.70 of $2.00 Running low, 90%", "Reserved": "$0.10", "Remaining": "$0.20",
        "Period": "in total", "Resets": "never",
    }  # fmt: skip
    assert bounds.row("Subscription to small").cell("Remaining") == "$10.00"
    assert page.section("Last requests").rows[0].cell("Cost") == "$0.002"


@pytest.mark.parametrize(("who", "seen", "done"), [("stranger", 404, 404), ("auditor", 200, 403), ("admin", 200, 303)])
def test_somebody_elses_key(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, seen: int, done: int
) -> None:
    id, _ = make_key(people.owner, name="mine")
    other = signed_in(who)
    assert other.get(f"/keys/{id}").status_code == seen
    assert "mine" not in other.page("/keys").row_names
    assert other.post(f"/keys/{id}/revocation", confirm="mine").status_code == done
    assert newest(people).status == ("revoked" if who == "admin" else "active")


def test_revoking_asks_for_the_name_and_takes_the_caller_off_the_noticeboard(
    people: People, small: Model, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    id, _ = make_key(people.owner, name="old one")
    digest = newest(people).secrets[0].digest
    assert wire.get(store.caller(digest))
    owner = signed_in("owner")
    answer = owner.post(f"/keys/{id}/revocation", page=f"/keys/{id}/revocation", confirm="old")
    assert answer.status_code == 422
    assert newest(people).status == "active"
    answer = owner.post(f"/keys/{id}/revocation", page=f"/keys/{id}/revocation", confirm="old one")
    assert answer.status_code == 303
    assert wire.get(store.caller(digest)) is None
    page = owner.page(f"/keys/{id}")
    assert page.status == "Revoked"
    assert not [way for way in page.ways if "/revocation" in way]
    assert owner.get(f"/keys/{id}/revocation").status_code == 303
