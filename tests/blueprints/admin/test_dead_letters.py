"""Dead letters: shown with secrets masked, posted again or dismissed, once, and never deleted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import select

from app import clock
from app.domain.audit import AuditEntry
from app.extensions import db
from app.ledger import budgets, posting
from app.ledger.entries import DeadLetter
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from app.workflows import dead_letters
from tests.blueprints.admin.conftest import READ_ONLY
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.ledger.books import encode, event
from tests.page import read

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
    assert "No dead letters" in admin.page("/admin/dead-letters").empty
    bury(b'{"error_message": "key sk-abcdefgh1234 <b>", "password": "hunter22"}', "Object missing required field")
    answer = admin.get("/admin/dead-letters")
    [row] = read(answer).rows
    assert row.cell("Source") == "stream 7-0"
    assert row.cell("Reason").texts[0] == "Object missing required field"
    assert row.cell("Reason").codes == ['{"error_message": "key sk-*** <b>", "password": "***"}']
    assert (row.cell("State"), row.cell("Decision")) == ("Open", "Post again Dismiss")
    assert "abcdefgh1234" not in answer.text
    assert "hunter22" not in answer.text
    assert "No dead letter fits this search." in admin.page("/admin/dead-letters?q=nothing", fragment=True).empty
    assert "No dead letter is in this state." in admin.page("/admin/dead-letters?state=dismissed").empty
    assert admin.page("/admin/dead-letters?state=all&q=missing").total == "1 result"


def test_the_list_has_pages(people: People, signed_in: SignedIn) -> None:
    for number in range(23):
        bury(b"x%d" % number)
    admin = signed_in("admin")
    shown = [
        row.cell("Reason").codes[0] for page in (1, 2) for row in admin.page(f"/admin/dead-letters?page={page}").rows
    ]
    assert len(admin.page("/admin/dead-letters").rows) == 20
    assert shown == [f"x{number}" for number in reversed(range(23))]


def test_a_letter_that_can_be_posted_now_is_booked_once_and_kept(people: People, signed_in: SignedIn) -> None:
    told = sound(cost_nano=500)
    id = bury(encode(told))
    admin = signed_in("admin")
    assert admin.post(f"/admin/dead-letters/{id}/posting").status_code == 303
    assert admin.page("/admin/dead-letters").toast == "The event is in the ledger."
    (letter,) = letters()
    assert (letter.state, letter.resolved_by, letter.note) == ("posted", "admin", None)
    assert letter.resolved_at is not None
    assert posting.known_requests([told.request_id]) == {told.request_id}
    assert budgets.spent("organisation", "default", "total") == 500
    assert [entry.object_name for entry in acts("dead_letter.post")] == [told.request_id]
    admin.post(f"/admin/dead-letters/{id}/posting")
    assert "admin has already posted" in admin.page("/admin/dead-letters").toast
    assert budgets.spent("organisation", "default", "total") == 500


def test_an_event_that_the_books_have_is_not_booked_twice(people: People, signed_in: SignedIn) -> None:
    told = sound(cost_nano=500)
    posting.post([told])
    id = bury(encode(told))
    admin = signed_in("admin")
    admin.post(f"/admin/dead-letters/{id}/posting")
    page = admin.page("/admin/dead-letters?state=posted")
    assert page.toast == "The ledger already had this event."
    assert "The ledger already had it." in page.rows[0].cell("Decision")
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
    answer = admin.get("/admin/dead-letters")
    page = read(answer)
    assert "It still cannot be read" in page.toast
    assert [row.cell("State") for row in page.rows] == ["Open"]
    assert "abcdefgh1234" not in answer.text
    assert [letter.state for letter in letters()] == ["open"]


def test_a_letter_is_dismissed_with_a_reason(people: People, signed_in: SignedIn) -> None:
    id = bury(b"nonsense")
    admin = signed_in("admin")
    path = f"/admin/dead-letters/{id}/dismissal"
    assert admin.page(path).heading == "Dismiss this dead letter?"
    for reason in ("", "   ", "x" * 501):
        refused = admin.post(path, page=path, reason=reason)
        assert refused.status_code == 422, reason
        assert read(refused).errors.keys() == {"Reason"}
    done = admin.post(path, page=path, reason="Noise from a port scan.")
    assert done.status_code == 303
    (letter,) = letters()
    assert (letter.state, letter.resolved_by, letter.note) == ("dismissed", "admin", "Noise from a port scan.")
    (entry,) = acts("dead_letter.dismiss")
    assert (entry.actor, entry.detail["reason"]) == ("admin", "Noise from a port scan.")
    [row] = admin.page("/admin/dead-letters?state=dismissed").rows
    assert "Noise from a port scan." in row.cell("Decision")
    assert row.buttons == []
    late = admin.post(path, reason="Me too.")
    assert (late.status_code, read(late).alert.heading) == (409, "This letter is decided already")
    assert dead_letters.open_count() == 0
    posting.bury("stream 8-0", b"nonsense", "again")  # delivered again, it stays decided
    assert [letter.state for letter in letters()] == ["dismissed"]


def test_read_only_admins_see_it_all_and_decide_nothing(people: People, signed_in: SignedIn) -> None:
    id = bury(encode(sound()))
    auditor = signed_in("auditor")
    [row] = auditor.page("/admin/dead-letters").rows
    assert [button.reason for button in row.buttons] == [READ_ONLY, READ_ONLY]
    page = auditor.page(f"/admin/dead-letters/{id}/dismissal")
    assert page.field("Reason").disabled
    assert page.button("Dismiss").reason == READ_ONLY
    for act in ("posting", "dismissal"):
        assert auditor.post(f"/admin/dead-letters/{id}/{act}", reason="x").status_code == 403
    assert letters()[0].state == "open"


def test_a_letter_that_is_none_is_not_found(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for id in ("0", "x", "9" * 30, new_id()):
        assert admin.get(f"/admin/dead-letters/{id}/dismissal").status_code == 404
        assert admin.post(f"/admin/dead-letters/{id}/posting").status_code == 404
