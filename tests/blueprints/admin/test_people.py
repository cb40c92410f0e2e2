"""People: listed, changed, deactivated, deleted, and what read-only admins and others may not."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable

import redis
from flask import Flask

from app import clock
from app.domain import budgets, identity, passwords, sessions, subscriptions, teams, tokens
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.domain.person import Person
from app.extensions import db, transaction
from tests.blueprints.admin.conftest import usable
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, use
from tests.house import PASSWORD, People
from tests.page import read

SignedIn = Callable[[str], Browser]


def fresh(username: str) -> Person:
    db.session.rollback()
    return identity.named(username)


def test_the_list_tells_keys_access_and_spending(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    key_id, _ = make_key(people.owner)
    use(people.owner, small, clock.now_ms(), key_id=key_id, cost_nano=1_250_000_000)
    admin = signed_in("admin")
    page = admin.page("/admin/people")
    assert page.row_names == ["admin", "auditor", "owner", "stranger"]
    row = page.row("owner")
    assert (row.cell("Keys"), row.cell("Subscriptions"), row.cell("Spent this month")) == ("1", "1", "$1.25")
    assert row.link("owner").href == "/admin/people/owner"
    assert page.row("stranger").cell("Spent this month") == "$0.00"
    assert admin.page("/admin/people?sort=-keys").row_names[0] == "owner"
    assert admin.page("/admin/people?q=TRAN", fragment=True).row_names == ["stranger"]
    assert admin.page("/admin/people?role=admin-readonly").row_names == ["auditor"]
    assert "Nobody fits these filters." in admin.page("/admin/people?status=deactivated").empty


def test_the_list_names_the_teams_of_each(people: People, signed_in: SignedIn) -> None:
    for name in ("Zebra", "alpha", "Lab"):
        team = transaction(teams.create, by=people.stranger, name=name)
        transaction(teams.put_member, team, people.owner, by=people.stranger)
    admin = signed_in("admin")
    cell = admin.page("/admin/people").row("owner").cell("Teams")
    assert cell == "alpha, Lab and 1 more"
    assert cell.title == "Zebra"
    told = json.loads(admin.get("/admin/people?q=owner&format=json", buffered=True).text)
    assert told["data"][0]["teams"] == ["alpha", "Lab", "Zebra"]


def test_groups_filter_whole_names_only(people: People, signed_in: SignedIn) -> None:
    transaction(identity.update, people.owner, by=people.admin, groups=["Physik", "Größe"])
    transaction(identity.update, people.stranger, by=people.admin, groups=["Phys"])
    admin = signed_in("admin")
    assert admin.page("/admin/people?group=Phys").row_names == ["stranger"]
    assert admin.post("/admin/people/owner", role="user", groups="Größe 100%").status_code == 422
    assert admin.post("/admin/people/owner", role="user", groups="Größe, b , Größe").status_code == 303
    assert fresh("owner").groups == ["Größe", "b"]
    assert admin.page("/admin/people", query_string={"group": "Größe"}).row_names == ["owner"]


def test_the_list_is_exported_as_it_is_filtered(people: People, signed_in: SignedIn) -> None:
    transaction(identity.update, people.owner, by=people.admin, email="owner@example.org")
    admin = signed_in("admin")
    rows = list(csv.DictReader(io.StringIO(admin.get("/admin/people?role=user&format=csv", buffered=True).text)))
    assert [row["username"] for row in rows] == ["owner", "stranger"]
    assert (rows[0]["email"], rows[0]["spent_this_month"], rows[0]["status"]) == ("owner@example.org", "0", "active")
    told = json.loads(admin.get("/admin/people?q=audi&format=json", buffered=True).text)
    assert [row["role"] for row in told["data"]] == ["admin-readonly"]


def test_a_profile_is_changed_and_written_down(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    form = {"email": "o@example.org", "role": "admin-readonly", "groups": "", "rpm": "7", "tpm": ""}
    assert admin.post("/admin/people/owner", **form).status_code == 303
    owner = fresh("owner")
    assert (owner.email, owner.role, owner.rpm, owner.tpm) == ("o@example.org", "admin-readonly", 7, None)
    newest = admin.page("/admin/people/owner?section=history").rows[0]
    assert (newest.cell("Who").texts[0], newest.cell("What").texts[0]) == ("admin", "Person changed")
    assert "e-mail: o@example.org" in newest.cell("Changes")
    for wrong, field, told in (
        ({"email": "nowhere"}, "E-mail", "Enter an e-mail address"),
        ({"email": "o@example.org,eve@example.org"}, "E-mail", "Enter an e-mail address"),
        ({"rpm": "0"}, "Requests per minute", "Enter a number of at least 1."),
        ({"role": "emperor"}, "Role", "Not a valid choice"),
    ):
        refused = admin.post("/admin/people/owner", **{**form, **wrong})
        page = read(refused)
        assert (refused.status_code, page.errors.keys()) == (422, {field})
        assert told in page.errors[field]
    assert fresh("owner").email == "o@example.org"


def test_fields_that_the_form_does_not_have_change_nothing(people: People, signed_in: SignedIn) -> None:
    form = {"role": "user", "username": "root", "disabled": "y", "scopes": "admin", "password_hash": "x", "id": "1"}
    before = fresh("owner").summary()
    assert signed_in("admin").post("/admin/people/owner", **form).status_code == 303
    assert fresh("owner").summary() == before


def test_the_last_admin_can_be_neither_demoted_nor_deactivated_nor_deleted(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    refused = admin.post("/admin/people/admin", role="user")
    assert refused.status_code == 409
    assert "is the last admin" in read(refused).alert
    assert admin.post("/admin/people/admin/deactivation").status_code == 303
    assert admin.post("/admin/people/admin/deletion", confirm="admin").status_code == 303
    kept = fresh("admin")
    assert (kept.role, kept.disabled) == ("admin", False)
    assert admin.get("/admin/people").status_code == 200  # still signed in, too


def test_a_budget_is_set_and_taken_away(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    form = {"limit": "12.5", "period": "week", "timezone": "Europe/Berlin"}
    assert admin.post("/admin/people/owner/budget", **form).status_code == 303
    found = budgets.find("user", people.owner.id)
    assert found is not None
    assert form.items() <= found.summary().items()
    shown = admin.page("/admin/people/owner").form("/admin/people/owner/budget").sends
    assert {name: shown[name] for name in form} == form
    refused = admin.post("/admin/people/owner/budget", **{**form, "limit": "much"})
    assert (refused.status_code, read(refused).errors.keys()) == (422, {"Budget"})
    assert admin.post("/admin/people/owner/budget", **{**form, "limit": " "}).status_code == 303
    db.session.rollback()
    assert budgets.find("user", people.owner.id) is None


def test_a_temporary_password_is_shown_once_and_has_to_be_changed(people: People, signed_in: SignedIn) -> None:
    owner, admin = signed_in("owner"), signed_in("admin")
    led = admin.post("/admin/people/owner/password")
    [password] = read(admin.secret_page(led)).codes
    assert "This has already been shown" in admin.page(led.headers["Location"]).headings
    assert re.fullmatch(r"[A-Za-z0-9]{20}", password)
    kept = fresh("owner")
    assert passwords.matches(password, kept.password_hash)
    assert kept.must_change_password
    assert not passwords.matches(PASSWORD, kept.password_hash)
    assert owner.get("/home").headers["Location"].startswith("/sign-in")
    assert password not in admin.get("/admin/people/owner?section=history").text
    assert password not in str([entry.detail for entry in db.session.query(AuditEntry)])


def test_a_deactivation_says_what_stops_and_stops_it(
    people: People, small: Model, signed_in: SignedIn, wire: redis.Redis
) -> None:
    subscribe(people.owner, small)
    make_key(people.owner)
    transaction(tokens.issue, people.owner, by=people.admin)
    owner, admin = signed_in("owner"), signed_in("admin")
    asked = admin.page("/admin/people/owner/deactivation").form("/admin/people/owner/deactivation")
    assert "1 API key, 1 access token and 1 browser session." in asked
    assert len(list(wire.scan_iter(match="*caller:*"))) == 2
    assert admin.post("/admin/people/owner/deactivation").status_code == 303
    assert list(wire.scan_iter(match="*caller:*")) == []
    assert owner.get("/home").headers["Location"].startswith("/sign-in")
    assert sessions.owned_by(people.owner.id) == []
    assert admin.page("/admin/people/owner").alert.heading == "owner is deactivated"
    page = admin.page("/admin/people?status=deactivated")
    assert page.row_names == ["owner"]
    assert page.row("owner").cell("Status") == "Deactivated"
    assert admin.post("/admin/people/owner/reactivation").status_code == 303
    assert len(list(wire.scan_iter(match="*caller:*"))) == 2
    assert signed_in("owner").get("/home").status_code == 200


def test_a_deletion_asks_for_the_name_and_leaves_nothing(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    make_key(people.owner, budget={"limit": "1", "period": "day"})
    admin = signed_in("admin")
    wrong = admin.post("/admin/people/owner/deletion", confirm="owne")
    assert wrong.status_code == 422
    assert "The name you typed is another" in read(wrong).alert
    assert admin.post("/admin/people/owner/deletion", confirm="owner").status_code == 303
    db.session.rollback()
    assert identity.find("owner") is None
    assert db.session.scalars(budgets.all_()).all() == []
    assert db.session.scalars(subscriptions.owned_by(people.stranger)).all() == []
    assert admin.get("/admin/people/owner").status_code == 404


def test_sessions_are_listed_and_ended_without_telling_their_ids(people: People, signed_in: SignedIn) -> None:
    owner, admin = signed_in("owner"), signed_in("admin")
    [session] = sessions.owned_by(people.owner.id)
    answer = admin.get("/admin/people/owner?section=sessions")
    assert f"/admin/people/owner/sessions/{session.reference}/ending" in read(answer).ways
    assert session.digest not in answer.text
    path = f"/admin/people/owner/sessions/{session.reference}/ending"
    assert admin.post(f"/admin/people/stranger/sessions/{session.reference}/ending").status_code == 404
    assert admin.post(path).status_code == 303
    assert owner.get("/home").status_code == 303
    assert admin.post(path).status_code == 404


def test_access_tokens_are_listed_and_revoked(people: People, signed_in: SignedIn) -> None:
    grant = transaction(tokens.issue, people.owner, by=people.admin, scopes=["inference"])
    admin = signed_in("admin")
    answer = admin.get("/admin/people/owner?section=sessions")
    assert "Long-lived" in read(answer).section("Access tokens")
    assert grant.access_token not in answer.text
    assert admin.post("/admin/people/owner/tokens/revocation").status_code == 303
    assert tokens.verify(grant.access_token) is None
    again = admin.post("/admin/people/owner/tokens/revocation")
    assert "owner has no token to revoke" in admin.page(again.headers["Location"]).toasts[-1]


def test_keys_and_subscriptions_of_somebody_are_shown(people: People, small: Model, signed_in: SignedIn) -> None:
    subscribe(people.owner, small)
    make_key(people.owner, name="letters")
    admin = signed_in("admin")
    assert admin.page("/admin/people/owner?section=keys").row_names == ["letters"]
    assert admin.page("/admin/people/owner?section=subscriptions").row_names == ["small"]
    assert "has not made a key" in admin.page("/admin/people/stranger?section=keys").empty
    assert "has not asked for a model" in admin.page("/admin/people/stranger?section=subscriptions").empty


WRITES = (
    "/admin/people/owner",
    "/admin/people/owner/budget",
    "/admin/people/owner/password",
    "/admin/people/owner/deactivation",
    "/admin/people/owner/reactivation",
    "/admin/people/owner/deletion",
    "/admin/people/owner/sessions/x/ending",
    "/admin/people/owner/tokens/revocation",
    "/admin/invitations",
    "/admin/announcement",
    "/admin/announcement/removal",
)
READS = (
    "/admin/people",
    "/admin/people/owner",
    *(f"/admin/people/owner?section={name}" for name in ("keys", "subscriptions", "sessions", "history")),
    "/admin/people/owner/password",
    "/admin/people/owner/deactivation",
    "/admin/people/owner/deletion",
    "/admin/invitations",
    "/admin/invitations/new",
    "/admin/announcement",
    "/admin/deliveries",
)


def test_who_may_only_read_sees_everything_with_its_controls_disabled(people: People, signed_in: SignedIn) -> None:
    signed_in("owner")
    auditor = signed_in("auditor")
    for path in READS:
        assert usable(auditor.page(path)) == [], path
    for path in WRITES:
        assert auditor.post(path, confirm="owner", role="admin").status_code == 403, path
    assert fresh("owner").role == "user"


def test_others_may_not_even_look(people: People, signed_in: SignedIn) -> None:
    stranger = signed_in("stranger")
    assert {stranger.get(path).status_code for path in READS} == {403}
    assert {stranger.post(path).status_code for path in WRITES} == {403}


def test_an_export_holds_no_connection_of_the_database_while_it_is_read(
    app: Flask, people: People, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    db.session.remove()  # the test's own
    answer = admin.get("/admin/people?format=csv", buffered=False)
    assert answer.is_streamed
    assert db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert "owner" in answer.text


def test_an_admin_does_not_lock_themselves_out(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    answer = admin.post("/admin/people/admin/password")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/people/admin")
    kept = fresh("admin")
    assert passwords.matches(PASSWORD, kept.password_hash)
    assert not kept.must_change_password


def test_whose_session_was_ended_by_whom_is_kept(people: People, signed_in: SignedIn) -> None:
    sessions.begin(people.owner.id, address="127.0.0.1", agent="a browser")
    reference = sessions.owned_by(people.owner.id)[0].reference
    signed_in("admin").post(f"/admin/people/owner/sessions/{reference}/ending")
    db.session.rollback()
    kept = db.session.query(AuditEntry).filter_by(action="session.end").one()
    assert (kept.actor, kept.object_id, kept.object_name) == ("admin", people.owner.id, "owner")
