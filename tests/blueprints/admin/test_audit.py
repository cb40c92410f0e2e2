"""The audit log: found by each of its words, opened entry by entry, exported, and the same for admins who only read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.clock import to_ms
from app.domain import audit, budgets, keys
from app.domain.audit import AuditEntry
from app.extensions import db, transaction
from app.ledger import posting
from app.ledger.measures import DAY_MS
from app.runtime.ids import new_id
from tests.blueprints.portal.conftest import Browser, make_key
from tests.conftest import SetClock
from tests.house import People, make_team
from tests.ledger.books import event

SignedIn = Callable[[str], Browser]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def note(people: People, action: str = "thing.act", name: str = "one", **values: object) -> str:
    entry = transaction(audit.record, people.admin, action, "thing", new_id(), name=name, **values)
    return str(entry.id)


def test_entries_are_found_by_each_filter_newest_first(people: People, signed_in: SignedIn, set_clock) -> None:
    for day, (by, name) in enumerate(((people.admin, "one"), (people.owner, "two"), (None, "three"))):
        set_clock(NOON + timedelta(days=day))
        transaction(audit.record, by, f"thing.{name}", "thing", f"id-{name}", name=name)
    auditor = signed_in("auditor")

    def found(query: str) -> list[str]:
        page = auditor.page(f"/admin/audit?{query}", fragment=True)
        return [cell.texts[-1] for cell in page.table().column("Object")] if page.tables else []

    assert found("kind=thing") == ["three", "two", "one"]
    assert found("kind=thing&actor=owner") == ["two"]
    assert found(f"kind=thing&actor={audit.SYSTEM}") == ["three"]
    assert found("action=thing.one") == ["one"]
    assert found("action=thing.*") == ["three", "two", "one"]
    assert found("object=id-two") == found("object=two") == found("q=ID-TWO") == ["two"]
    assert found("kind=thing&from=2026-11-22") == ["three", "two"]
    assert found("kind=thing&to=2026-11-22") == ["two", "one"], "the last day is included"
    assert found("kind=thing&address=192.0.2.1") == []
    page = auditor.page("/admin/audit?action=thing.*&from=soon")
    assert page.alert.heading == "From is not used"
    assert page.link("Remove filter Action: thing.*")
    assert "No audit entry fits these filters." in auditor.page("/admin/audit?q=never").empty


def test_pages_go_on_by_cursor_and_back(people: People, signed_in: SignedIn) -> None:
    for number in range(45):
        note(people, name=f"n{number:02}")
    admin = signed_in("admin")
    path, seen = "/admin/audit?kind=thing", []
    while path:
        page = admin.page(path)
        seen.append([cell.texts[-1] for cell in page.table().column("Object")])
        path = next((link.href for link in page.links if link.text == "Older"), "")
    assert [name for names in seen for name in names] == [f"n{number:02}" for number in reversed(range(45))]
    page = admin.page(page.link("Newer").href)
    assert [cell.texts[-1] for cell in page.table().column("Object")] == seen[1]
    assert page.link("Newest").href == "/admin/audit?kind=thing"
    assert admin.get("/admin/audit?cursor=nonsense").status_code == 404


def test_an_entry_opens_with_its_values_before_and_after(people: People, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="nightly")
    transaction(lambda: keys.update(keys.get_visible(people.owner, key), by=people.owner, rpm=7))
    auditor = signed_in("auditor")
    [row] = [row for row in auditor.page("/admin/audit?kind=key").rows if row.cell("What").texts[0] == "Key changed"]
    assert row.cell("Changes") == "requests per minute: 7"
    assert row.cell("Who").link("owner").href == "/admin/people/owner"
    assert row.cell("Object").link("nightly").href == f"/keys/{key}"
    page = auditor.page(row.cell("What").link("Key changed").href)
    assert page.heading == "Key changed"
    assert (page.definition("Action"), page.definition("Who")) == ("key.update", "owner")
    [change] = page.table("Values before and after").rows
    assert change.cells == {"Field": "requests per minute", "Before": "none", "After": "7"}
    others = auditor.page(page.link("Other entries about this object").href)
    assert [cell.texts[0] for cell in others.table().column("What")] == ["Key changed", "Key created"]
    assert auditor.get("/admin/audit/nothing").status_code == 404


def test_links_lead_only_to_what_is_there(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    team = transaction(make_team)
    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="5")
    transaction(audit.record, people.admin, "key.revoke", "key", new_id(), name="gone")
    page = admin.page("/admin/audit")
    objects = {row.cell("What").texts[0]: row.cell("Object") for row in page.rows}
    assert objects["Team created"].link("Research").href == f"/teams/{team.id}"
    assert objects["Budget set"].hrefs == ["/admin/budgets/user/owner"]
    assert objects["Key revoked"].hrefs == []
    for href in {href for row in page.rows for href in row.hrefs}:
        assert admin.get(href).status_code == 200, href


def test_a_secret_that_slipped_in_is_masked_everywhere(people: People, signed_in: SignedIn) -> None:
    id = note(people, after={"api_key": "sk-abcdefgh1234"}, reason="sk-abcdefgh1234", facts={"text": "sk-abcdefgh1234"})
    admin = signed_in("admin")
    for path in ("", f"/{id}", "?format=csv", "?format=json"):
        answer = admin.get(f"/admin/audit{path}", buffered=True)
        assert answer.status_code == 200
        assert "abcdefgh1234" not in answer.text, path


def test_what_is_found_is_exported_and_that_is_audited(people: People, signed_in: SignedIn) -> None:
    note(people, name="=1+1", before={"limit": "5"}, after={"limit": "8"})
    auditor = signed_in("auditor")
    [row] = csv.DictReader(io.StringIO(auditor.get("/admin/audit?kind=thing&format=csv", buffered=True).text))
    assert (row["object_name"], row["actor"]) == ("'=1+1", "admin")
    assert json.loads(row["detail"]) == {"before": {"limit": "5"}, "after": {"limit": "8"}}
    told = json.loads(auditor.get("/admin/audit?kind=thing&format=json", buffered=True).text)["data"]
    assert [(one["object_name"], one["detail"]["after"]) for one in told] == [("=1+1", {"limit": "8"})]
    db.session.rollback()
    exports = db.session.scalars(audit.entries(action="audit.export")).all()
    assert [(one.actor, one.detail) for one in exports] == [
        ("auditor", {"format": format, "kind": "thing"}) for format in ("json", "csv")
    ]


def test_a_first_log_says_what_will_stand_there(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    transaction(lambda: db.session.query(AuditEntry).delete())
    assert "No audit entries yet" in admin.page("/admin/audit").empty


@pytest.mark.parametrize("query", ["from=0001-01-01", "to=9999-12-31", "from=2026-11-31", "size=7&cursor=", "kind=%00"])
def test_no_query_is_an_error(people: People, signed_in: SignedIn, query: str) -> None:
    assert signed_in("admin").get(f"/admin/audit?{query}").status_code == 200


def test_the_page_says_whether_the_log_is_as_it_was_written(people: People, signed_in: SignedIn) -> None:
    ids = [note(people, name=f"n{number}") for number in range(4)]
    auditor = signed_in("auditor")
    assert auditor.page("/admin/audit").link("Verify").href == "/admin/audit/verification"
    assert auditor.page("/admin/audit/verification").alert.heading == "The audit log is intact"
    entry = db.session.get(AuditEntry, ids[1])
    assert entry is not None
    entry.actor = "nobody"
    db.session.commit()
    page = auditor.page("/admin/audit/verification")
    assert page.alert.heading == "The audit log was edited"
    assert page.link(ids[1]).href == f"/admin/audit/{ids[1]}"
    db.session.query(AuditEntry).delete()
    db.session.commit()
    assert auditor.page("/admin/audit/verification").alert.heading == "The end of the audit log was cut off"


def test_the_digest_counts_a_week_beside_the_one_before_and_tells_what_is_unusual(
    people: People, signed_in: SignedIn, set_clock: SetClock
) -> None:
    set_clock(NOON)  # a Saturday
    note(people)
    note(people)
    first = to_ms(NOON) - 14 * DAY_MS
    costs = [50_000_000] * 14 + [900_000_000]
    posting.post(
        [event(person_id=people.owner.id, at_ms=first + at * DAY_MS, cost_nano=cost) for at, cost in enumerate(costs)]
    )
    auditor = signed_in("auditor")
    href = auditor.page("/admin/audit").link("Weekly digest").href
    page = auditor.page(href)
    assert page.row("thing.act").cell("This week") == "2"
    unusual = page.row("2026-11-21")
    assert (unusual.cell("Team or person"), unusual.cell("What"), unusual.cell("Amount")) == ("owner", "Cost", "$0.90")
    assert auditor.get(unusual.hrefs[0]).status_code == 200
    later = auditor.page("/admin/audit/digest?week=2026-11-11")
    assert "No unusual usage" in later.headings
    assert later.link("Week after").href == "/admin/audit/digest?week=2026-11-16"
    for week in ("2999-01-01", "nonsense", "0001-01-01"):
        assert auditor.get(f"/admin/audit/digest?week={week}").status_code == 200
    assert signed_in("owner").get(href).status_code == 403
