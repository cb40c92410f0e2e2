"""What holds for every page of the portal: who may enter, what a GET leaves behind, and the menu around it."""

from __future__ import annotations

import contextvars
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import urlencode

import pytest
import redis
from flask import Flask
from sqlalchemy import event
from werkzeug.test import TestResponse

from app import clock, store
from app.clock import now
from app.domain import identity, sessions
from app.domain.catalog import Model
from app.extensions import db, transaction
from app.jobs import quotas
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, token_of, use
from tests.house import PASSWORD, People

EVERYBODY = ("/home", "/models", "/models/small", "/subscriptions", "/keys", "/keys/new", "/usage", "/notices")


def test_nobody_is_led_to_the_form_and_back(app: Flask, people: People) -> None:
    for path in EVERYBODY:
        answer = contextvars.Context().run(app.test_client().get, path)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?next={path}")


@pytest.mark.parametrize("cookie", ["kept", "gone"])
@pytest.mark.parametrize(
    ("path", "referrer", "back"),
    [
        ("/keys", "http://localhost/keys/new?model=small", "/keys/new?model=small"),
        ("/keys", None, "/keys"),
        ("/keys", "https://evil.example/keys/new", "/keys"),
        ("/subscriptions/x/cancellation", "http://localhost/nothing-here", "/subscriptions/x/cancellation"),
        ("/budgets/user/owner/requests", "http://localhost/budgets/user/owner/requests", None),
    ],
)
def test_a_form_sent_after_the_session_ended_leads_to_signing_in_and_back(
    signed_in: Callable[[str], Browser],
    wire: redis.Redis,
    cookie: str,
    path: str,
    referrer: str | None,
    back: str | None,
) -> None:
    owner = signed_in("owner")
    headers = {"Referer": referrer} if referrer else {}
    form = {"csrf_token": token_of(owner.get("/home"))}
    to_sign_in = f"/sign-in?{urlencode({'next': back}, safe='/?')}" if back else "/sign-in"

    def send(**more: str) -> TestResponse:
        wire.flushall()
        if cookie == "gone":
            owner.client.delete_cookie("portico_session")
        return contextvars.Context().run(owner.client.post, path, data=form, headers={**headers, **more})

    answer = send()
    assert (answer.status_code, answer.headers["Location"]) == (303, to_sign_in)
    assert owner.page(to_sign_in).alert.heading == "Your session has ended"
    answer = send(**{"HX-Request": "true", "HX-Request-Type": "partial"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, to_sign_in)
    answer = owner.post(to_sign_in, page=to_sign_in, username="owner", password=PASSWORD)
    assert answer.headers["Location"] == (back or "/")
    assert "Your session has ended" not in owner.get("/home").text


def test_pages_answer_empty_and_full_and_a_get_writes_nothing(
    app: Flask, people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    for path in EVERYBODY:
        assert owner.get(path).status_code == 200, path
    subscription = subscribe(people.owner, small)
    key, _ = make_key(people.owner, models=["small"], budget={"limit": "5", "period": "month"})
    request_id = use(people.owner, small, clock.now_ms(), key_id=key)
    pages = [
        *EVERYBODY,
        f"/subscriptions/{subscription}/cancellation",
        f"/keys/{key}",
        f"/keys/{key}/revocation",
        f"/activity/{request_id}",
    ]
    written: list[str] = []

    @event.listens_for(db.engine, "before_cursor_execute")
    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.split(None, 1)[0].upper() in ("INSERT", "UPDATE", "DELETE"):
            written.append(statement)

    for path in pages:
        answer = owner.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["Cache-Control"] == "no-store"
    assert written == []


def test_who_uses_the_portal_was_seen_then_by_a_note_that_the_clock_writes_down(
    people: People, signed_in: Callable[[str], Browser], wire: redis.Redis
) -> None:
    owner = signed_in("owner")
    long_ago = now() - timedelta(days=3)

    def was_seen_at(moment: datetime) -> None:
        transaction(lambda: setattr(identity.named("owner"), "last_seen_at", moment))

    def use_again() -> datetime | None:
        """When the owner was last seen, once a page is read two minutes after the last one and the clock has struck."""
        [session] = sessions.owned_by(people.owner.id)
        wire.hset(store.session(session.digest), "seen", session.seen - 120)
        assert owner.get("/home").status_code == 200
        db.session.rollback()
        before = identity.named("owner").last_seen_at
        quotas.run()
        db.session.rollback()
        assert before == told[-1]
        return identity.named("owner").last_seen_at

    told = [long_ago]
    was_seen_at(long_ago)
    told.append(use_again() or long_ago)
    assert now() - told[-1] < timedelta(minutes=1)
    assert use_again() == told[-1]  # at most once in a quarter of an hour
    told.append(now() - timedelta(minutes=16))
    was_seen_at(told[-1])
    assert (use_again() or long_ago) > told[-1]


def without_age(page: str) -> str:
    """The page without the second in which it was made."""
    return re.sub(r'data-age="[^"]*"', "", page)


def test_htmx_gets_the_fragment_alone(signed_in: Callable[[str], Browser], people: People) -> None:
    owner = signed_in("owner")
    for path in ("/models", "/subscriptions", "/keys", "/usage"):
        fragment = without_age(owner.get(path, fragment=True).text.strip())
        assert fragment.startswith('<div class="region"'), path
        assert fragment in without_age(owner.get(path).text), path


def test_the_menu_shows_what_the_role_and_the_process_have(
    people: People, guarded: Model, signed_in: Callable[[str], Browser]
) -> None:
    signed_in("owner").post("/models/lab/guarded/subscription", justification="Research.")
    assert "/admin/" not in signed_in("owner").get("/home").text
    for name in ("admin", "auditor"):
        menu = signed_in(name).page("/home").menu
        assert "/admin/usage" in menu.hrefs
        assert menu.link("Approvals").badge == "1"
    page = signed_in("owner").page("/keys")
    assert [link.text for link in page.whole.links if link.is_current] == ["API keys"]
    assert page.whole.form("/sign-out").button("Sign out")
    assert "/password" in page.whole.hrefs
