"""Dead letters: shown with secrets masked, posted again or dismissed, once, and never deleted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import select

from app import clock
from app.domain.audit import AuditEntry
from app.extensions import db
from app.ids import new_id
from app.ledger import budgets, dead_letters, posting
from app.ledger.entries import DeadLetter
from app.metering.usage import UsageEvent
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.ledger.books import encode, event

SignedIn = Callable[[str], Browser]


def letters() -> list[DeadLetter]:
    db.session.rollback()
    return list(db.session.scalars(select(DeadLetter).order_by(DeadLetter.id)))


def bury(raw: bytes, reason: str = "the database refused it", source: str = "stream 7-0") -> str:
    posting.bury(source, raw, reason)
    return str(letters()[-1].id)


def sound(**fields: object) -> UsageEvent:
    return event(at_ms=clock.now_ms(), **fields)


def acts(action: str) -> list[AuditEntry]:
    return list(db.session.scalars(select(AuditEntry).where(AuditEntry.action == action)))


def test_the_list_shows_reason_source_and_the_masked_event(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No dead letters" in admin.get("/admin/dead-letters").text
    bury(b'{"error_message": "key sk-abcdefgh1234 <b>", "password": "hunter22"}', "Object missing required field")
    page = admin.get("/admin/dead-letters").text
    for words in ("stream 7-0", "Object missing required field", "sk-***", "&lt;b&gt;", "Post again", "Dismiss"):
        assert words in page, words
    assert "abcdefgh1234" not in page
    assert "hunter22" not in page
    assert "No dead letter fits this search." in admin.get("/admin/dead-letters?q=nothing", fragment=True).text
    assert "No dead letter is in this state." in admin.get("/admin/dead-letters?state=dismissed").text
    assert "1 result<" in admin.get("/admin/dead-letters?state=all&q=missing").text


def test_the_list_has_pages(people: People, signed_in: SignedIn) -> None:
    for number in range(23):
        bury(b"x%d" % number)
    admin = signed_in("admin")
    assert admin.get("/admin/dead-letters").text.count('id="letter-') == 20
    assert admin.get("/admin/dead-letters?page=2").text.count('id="letter-') == 3


def test_a_letter_that_can_be_posted_now_is_booked_once_and_kept(people: People, signed_in: SignedIn) -> None:
    told = sound(cost_nano=500)
    id = bury(encode(told))
    admin = signed_in("admin")
    assert admin.post(f"/admin/dead-letters/{id}/posting").status_code == 303
    assert "The event is in the books." in admin.get("/admin/dead-letters").text
    (letter,) = letters()
    assert (letter.state, letter.resolved_by, letter.note) == ("posted", "admin", None)
    assert letter.resolved_at is not None
    assert posting.known_requests([told.request_id]) == {told.request_id}
    assert budgets.spent("organisation", "default", "total") == 500
    assert [entry.object_name for entry in acts("dead_letter.post")] == [told.request_id]
    admin.post(f"/admin/dead-letters/{id}/posting")
    assert "posted already, by admin" in admin.get("/admin/dead-letters").text
    assert budgets.spent("organisation", "default", "total") == 500


def test_an_event_that_the_books_have_is_not_booked_twice(people: People, signed_in: SignedIn) -> None:
    told = sound(cost_nano=500)
    posting.post([told])
    id = bury(encode(told))
    admin = signed_in("admin")
    admin.post(f"/admin/dead-letters/{id}/posting")
    page = admin.get("/admin/dead-letters?state=posted").text
    assert "The books had this event already." in page
    assert "The books had it already." in page
    assert budgets.spent("organisation", "default", "total") == 500


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense",
        b'{"request_id": "sk-abcdefgh1234"}',
        encode(sound(cost_nano=2**60)),
        msgspec.json.encode({"at": "\ud7ff"}),
        b"\xff\xfe",
    ],
)
def test_what_still_cannot_be_read_stays_open(people: People, signed_in: SignedIn, raw: bytes) -> None:
    id = bury(raw)
    admin = signed_in("admin")
    assert admin.post(f"/admin/dead-letters/{id}/posting").status_code == 303
    page = admin.get("/admin/dead-letters").text
    assert "It still cannot be read" in page
    assert "abcdefgh1234" not in page
    assert [letter.state for letter in letters()] == ["open"]


def test_a_letter_is_dismissed_with_a_reason(people: People, signed_in: SignedIn) -> None:
    id = bury(b"nonsense")
    admin = signed_in("admin")
    path = f"/admin/dead-letters/{id}/dismissal"
    assert "Dismiss this dead letter?" in admin.get(path).text
    for reason in ("", "   ", "x" * 501):
        refused = admin.post(path, page=path, reason=reason)
        assert refused.status_code == 422, reason
        assert "Please check these fields" in refused.text
    done = admin.post(path, page=path, reason="Noise from a port scan.")
    assert done.status_code == 303
    (letter,) = letters()
    assert (letter.state, letter.resolved_by, letter.note) == ("dismissed", "admin", "Noise from a port scan.")
    (entry,) = acts("dead_letter.dismiss")
    assert (entry.actor, entry.detail["reason"]) == ("admin", "Noise from a port scan.")
    page = admin.get("/admin/dead-letters?state=dismissed").text
    assert "Noise from a port scan." in page
    assert "Post again" not in page
    late = admin.post(path, reason="Me too.")
    assert (late.status_code, "decided already" in late.text) == (409, True)
    assert dead_letters.open_count() == 0
    posting.bury("stream 8-0", b"nonsense", "again")  # delivered again, it stays decided
    assert [letter.state for letter in letters()] == ["dismissed"]


def test_read_only_admins_see_it_all_and_decide_nothing(people: People, signed_in: SignedIn) -> None:
    id = bury(encode(sound()))
    auditor = signed_in("auditor")
    page = auditor.get("/admin/dead-letters").text
    assert "Your role may read everything here and change nothing." in page
    assert page.count('aria-disabled="true"') >= 2
    assert auditor.get(f"/admin/dead-letters/{id}/dismissal").status_code == 200
    for act in ("posting", "dismissal"):
        assert auditor.post(f"/admin/dead-letters/{id}/{act}", reason="x").status_code == 403
    assert letters()[0].state == "open"


def test_a_letter_that_is_none_is_not_found(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for id in ("0", "x", "9" * 30, new_id()):
        assert admin.get(f"/admin/dead-letters/{id}/dismissal").status_code == 404
        assert admin.post(f"/admin/dead-letters/{id}/posting").status_code == 404
