"""Notices: one's own, read once, and told by e-mail only to who is there to read it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from flask import Flask
from sqlalchemy import select

from app.domain import notices
from app.domain.deliveries import Delivery
from app.domain.errors import NotFound
from app.domain.notices import Notice
from app.domain.person import Person
from app.extensions import db, transaction
from config import Mail, Webhook
from tests.house import People


def tell(person: Person, title: str = "A title", **values: object) -> Notice:
    return transaction(notices.notify, person, "test.kind", title, **values)  # type: ignore[arg-type]


def unread(person: Person) -> int:
    return db.session.scalar(notices.unread_count(person)) or 0


def test_a_notice_is_its_persons_own(people: People) -> None:
    found = tell(people.owner)
    tell(people.owner, "Later")
    assert [one.title for one in db.session.scalars(notices.addressed_to(people.owner))] == ["Later", "A title"]
    assert notices.get_visible(people.owner, found.id) is found
    for other in (people.stranger, people.admin):
        with pytest.raises(NotFound):
            notices.get_visible(other, found.id)
        assert unread(other) == 0


def test_reading_again_keeps_when_it_was_read(people: People, set_clock) -> None:
    found = tell(people.owner)
    transaction(notices.mark_read, found)
    first = found.read_at
    assert first is not None
    set_clock(first + timedelta(hours=1))
    transaction(notices.mark_read, found)
    transaction(notices.mark_all_read, people.owner)
    assert found.read_at == first
    assert db.session.scalars(notices.addressed_to(people.owner, unread=True)).all() == []


def test_reading_all_reads_nobody_elses(people: People) -> None:
    for person in (people.owner, people.owner, people.stranger):
        tell(person)
    transaction(notices.mark_all_read, people.owner)
    assert (unread(people.owner), unread(people.stranger)) == (0, 1)


def test_a_title_is_cut_to_what_fits(people: People) -> None:
    assert len(tell(people.owner, "x" * 300).title) == 200


@pytest.fixture
def reachable(inside: Flask, people: People) -> People:
    """People with addresses, and a deployment that mails and calls a webhook."""
    inside.config["PORTICO"] = msgspec.structs.replace(
        inside.config["PORTICO"],
        mail=Mail(host="127.0.0.1", sender="portico@example.org"),
        webhook=Webhook(url="http://127.0.0.1:1/hook"),
    )

    def addresses() -> None:
        for person in (people.owner, people.stranger, people.auditor):
            person.email = f"{person.username}@example.org"
        people.stranger.email_notices = False
        people.auditor.disabled = True

    transaction(addresses)
    return people


def left() -> list[tuple[str, str]]:
    """What leaves by mail and by webhook: the address, or the title."""
    found = db.session.scalars(select(Delivery).order_by(Delivery.id))
    return [(one.channel, one.target if one.channel == "email" else one.payload["title"]) for one in found]


def test_mails_go_to_who_is_there_and_wants_them(reachable: People) -> None:
    for person in (reachable.owner, reachable.stranger, reachable.auditor, reachable.admin):
        tell(person, f"For {person.username}", by_webhook=False)
    assert left() == [("email", "owner@example.org")]


def test_several_people_are_told_and_the_webhook_once(reachable: People) -> None:
    two = [reachable.owner, reachable.stranger]
    transaction(notices.notify_all, two, "test.kind", "For two", "text", "/budgets", about={"share": 80})
    transaction(notices.notify_all, [], "test.kind", "For nobody", "text", "/budgets")
    assert left() == [("email", "owner@example.org"), ("webhook", "For two"), ("webhook", "For nobody")]
    hook = db.session.scalars(select(Delivery).where(Delivery.channel == "webhook").order_by(Delivery.id)).first()
    assert hook is not None
    assert (hook.payload["people"], hook.payload["share"]) == (["owner", "stranger"], 80)
    assert hook.payload["href"].endswith("/budgets") and hook.payload["href"].startswith("http")
