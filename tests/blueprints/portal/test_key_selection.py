"""Several keys at once: each is done by itself, what cannot be changed is left out, and revoking asks for words."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.keys import ApiKey
from app.extensions import db
from tests.blueprints.portal.conftest import Browser, make_key
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def statuses(*ids: str) -> list[str]:
    db.session.rollback()
    return [key.status for id in ids if (key := db.session.get(ApiKey, id))]


def test_keys_are_paused_together_with_a_result_for_each(people: People, signed_in: SignedIn) -> None:
    one, other = make_key(people.owner, name="one")[0], make_key(people.owner, name="other")[0]
    theirs, _ = make_key(people.stranger, name="theirs")
    owner = signed_in("owner")
    assert owner.page("/keys").button("Review selected")
    page = owner.page(f"/keys/selection?ids={one}&ids={other}&ids={theirs}&ids=nothing")
    assert page.table("Selected keys").column("Owner") == ["owner", "owner"]
    answer = owner.post("/keys/selection", ids=[one, other, theirs], act="pause")
    assert read(answer).table("Result of each key").column("Result") == ["Paused", "Paused"]
    assert statuses(one, other, theirs) == ["paused", "paused", "active"]


def test_one_that_cannot_be_changed_does_not_stop_the_others(people: People, signed_in: SignedIn) -> None:
    gone, live = make_key(people.owner, name="gone")[0], make_key(people.owner, name="live")[0]
    owner = signed_in("owner")
    assert owner.post(f"/keys/{gone}/revocation", confirm="gone").status_code == 303
    results = read(owner.post("/keys/selection", ids=[gone, live], act="pause")).table("Result of each key")
    assert results.row("live").cell("Result") == "Paused"
    assert "revoked" in results.row("gone").cell("Result")
    assert statuses(live) == ["paused"]


def test_revoking_several_asks_for_words(people: People, signed_in: SignedIn) -> None:
    one, other = make_key(people.owner, name="one")[0], make_key(people.owner, name="other")[0]
    owner = signed_in("owner")
    refused = owner.post("/keys/selection", ids=[one, other], act="revoke", confirm="revoke 1")
    assert (refused.status_code, statuses(one, other)) == (422, ["active", "active"])
    assert owner.post("/keys/selection", ids=[one, other], act="revoke", confirm="revoke 2").status_code == 200
    assert statuses(one, other) == ["revoked", "revoked"]
    assert owner.post("/keys/selection", ids=[one], act="dance").status_code == 400


def test_without_a_choice_the_page_says_so(people: People, signed_in: SignedIn) -> None:
    assert "Nothing is selected" in signed_in("owner").page("/keys/selection").headings
