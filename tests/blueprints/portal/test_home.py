"""The first page: what is left to do, how things stand, and for admins how the whole stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from app import clock
from app.clock import now
from app.domain.catalog import Model
from app.ledger import rollups
from app.metering.periods import window_of
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, use
from tests.house import People

SignedIn = Callable[[str], Browser]


def open_steps(page: str) -> list[str]:
    """What is still to be done, as the buttons say it."""
    start = re.search(r'id="start".*?</section>', page, re.S)
    return re.findall(r"button__text\">([^<]+)<", start[0]) if start else []


def test_the_three_steps_are_ticked_off_one_by_one(people: People, small: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert open_steps(owner.get("/home").text) == ["Browse models", "Create a key", "See the quickstart"]
    subscribe(people.owner, small)
    assert open_steps(owner.get("/home").text) == ["Create a key", "See the quickstart"]
    key, _ = make_key(people.owner)
    assert open_steps(owner.get("/home").text) == ["See the quickstart"]
    use(people.owner, small, clock.now_ms(), key_id=key)
    page = owner.get("/home").text
    assert 'id="start"' not in page
    assert "http://localhost/v1" in page


def test_what_needs_attention_is_told(people: People, small: Model, guarded: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    subscribe(people.owner, guarded)
    make_key(people.owner, name="soon-over", expires_at=now() + timedelta(days=3))
    make_key(people.owner, name="long-lived", expires_at=now() + timedelta(days=60))
    page = owner.get("/home").text
    assert "The key soon-over expires in 2 days" in page
    assert "long-lived" not in page
    assert re.search(r'Requests for access.*?href="/models/lab/guarded"', page, re.S)
    newest = page.split('id="newest"')[1]
    assert newest.index("lab/guarded") < newest.index('href="/models/small"')


@pytest.mark.parametrize("derived", [False, True])
def test_the_month_begins_with_its_first_instant(
    people: People, small: Model, signed_in: SignedIn, derived: bool
) -> None:
    first = window_of("month|UTC", clock.now_ms()).start_ms
    use(people.owner, small, first, cost_nano=2_000_000_000)
    use(people.owner, small, first - 1, cost_nano=40_000_000_000)
    if derived:
        rollups.derive()
    tile = signed_in("owner").get("/home").text.split("Spent this month")[1][:600]
    assert "$2.00" in tile


def test_the_whole_portal_is_told_to_admins_only(
    people: People, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    subscribe(people.owner, guarded)
    use(people.owner, small, clock.now_ms())
    for name in ("admin", "auditor"):
        page = signed_in(name).get("/home").text
        assert "1 request waits for a decision" in page
        figures = re.findall(r'<dt.*?text">([^<]+)<.*?<dd.*?figure"[^>]*>([^<]+)<', page.split('id="system"')[1], re.S)
        told = dict(figures[:4])
        assert told == {"People": "4", "Active today": "1", "Requests today": "1", "Tokens today": "1,500"}
    assert "The whole portal" not in signed_in("owner").get("/home").text
