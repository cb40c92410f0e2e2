"""Who gets through the admins' door: every route, for everybody there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select

from app import clock
from app.domain import approval_rules, catalog, invitations, sync
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.domain.deliveries import Delivery
from app.extensions import db, transaction
from app.ledger import entries, posting
from app.runtime.ids import new_id
from app.workflows import config_changes
from tests.blueprints.admin.conftest import READ_ONLY, usable
from tests.blueprints.portal.conftest import Browser, subscribe, use
from tests.house import People
from tests.page import read


@pytest.fixture
def paths(people: People, guarded: Model) -> dict[str, str]:
    """What stands for the ids in the routes."""
    return {
        "approvals": subscribe(people.owner, guarded),
        "providers": guarded.deployments[0].provider_id,
        "provider_models": guarded.deployments[0].provider_id,
        "models": guarded.id,
        "dead_letters": dead_letter(),
        "invitations": invited(people),
        "deliveries": mailed(),
        "configs": transaction(config_changes.save, by=people.admin, name="Saved").id,
        "rules": transaction(approval_rules.create, by=people.admin, name="Cheap ones").id,
        "activity": use(people.owner, guarded, clock.now_ms()),
        "budgets": "stranger",
        "audit": str(db.session.scalar(select(AuditEntry.id).limit(1))),
        "jobs": new_id(),
        "litellm": planned(),
        "people": new_id(),
    }


def planned() -> str:
    made = sync.SyncPlan(id=new_id())
    transaction(lambda: db.session.add(made))
    return str(db.session.scalar(select(sync.SyncPlan.id)))


def dead_letter() -> str:
    posting.bury("stream 7-0", b"nonsense", "not JSON")
    db.session.rollback()
    return str(db.session.scalar(select(entries.DeadLetter.id)))


def invited(people: People) -> str:
    made, _ = transaction(invitations.invite, by=people.admin, link="/invitation/{token}")
    return made.id


def mailed() -> str:
    made = Delivery(id=new_id(), channel="email", target="ada@example.org", kind="test", state="dead", payload={})
    transaction(lambda: db.session.add(made))
    return str(db.session.scalar(select(Delivery.id)))


def routes(app: Flask, ids: dict[str, str]) -> list[tuple[str, str]]:
    """Method and path of every route of the door."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("admin."):
            path = rule.rule.replace("<id>", ids.get(rule.endpoint.split(".")[1], ""))
            path = path.replace("<username>", "stranger").replace("<reference>", "R").replace("<scope>", "user")
            path = path.replace("/credits/new", "/credits/new?scope=user/stranger")
            found += [(method, path) for method in (rule.methods or set()) & {"GET", "POST"}]
    assert {method for method, _ in found} == {"GET", "POST"}
    return sorted(found)


def test_admins_see_every_page_and_read_only_ones_too(
    app: Flask, paths: dict[str, str], signed_in: Callable[[str], Browser]
) -> None:
    for name in ("admin", "auditor"):
        browser = signed_in(name)
        for method, path in routes(app, paths):
            if method == "GET":
                # Of the provider's kind no server tells how its models fare, and what tensors they have.
                expected = 404 if path.endswith(("/server", "/tensors")) else 200
                assert browser.get(path).status_code == expected, (name, path)


def test_read_only_admins_change_nothing_and_are_told_why(
    app: Flask, paths: dict[str, str], signed_in: Callable[[str], Browser]
) -> None:
    auditor = signed_in("auditor")
    for method, path in routes(app, paths):
        if method == "POST":
            refused = auditor.post(path, name="x", decision="approve", confirm="lab/guarded", kind="echo")
            assert (refused.status_code, READ_ONLY in read(refused)) == (403, True), path
    for area, id in (("providers", paths["providers"]), ("models", paths["models"])):
        page = auditor.page(f"/admin/{area}/{id}")
        assert page.alert.heading == READ_ONLY
        assert usable(page) == []
        assert page.fields
        assert [field for field in page.fields if not field.disabled] == []
    db.session.rollback()
    assert catalog.find_model("lab/guarded") is not None


@pytest.mark.slow
def test_others_are_refused_with_a_way_on(
    app: Flask, paths: dict[str, str], signed_in: Callable[[str], Browser]
) -> None:
    for name in ("owner", "stranger"):
        browser = signed_in(name)
        for method, path in routes(app, paths):
            refused = browser.get(path) if method == "GET" else browser.post(path)
            assert (refused.status_code, read(refused).link("Go to the start page").href) == (403, "/"), (name, path)
        assert "/admin/" not in browser.get("/home").text


def test_nobody_is_led_to_the_sign_in(app: Flask, paths: dict[str, str]) -> None:
    app.config["WTF_CSRF_ENABLED"] = False
    client = app.test_client()
    for method, path in routes(app, paths):
        answer = client.open(path, method=method)
        assert answer.status_code == 303, (method, path)
        assert answer.headers["Location"].startswith("/sign-in")


def test_changes_without_the_forms_token_are_refused(
    app: Flask, paths: dict[str, str], signed_in: Callable[[str], Browser]
) -> None:
    admin = signed_in("admin")
    for method, path in routes(app, paths):
        if method == "POST":
            assert admin.post(path, csrf_token="").status_code == 400, path


def test_what_is_not_there_is_not_found(people: People, signed_in: Callable[[str], Browser]) -> None:
    admin = signed_in("admin")
    for path in ("/admin/providers/nothing", "/admin/models/nothing", "/admin/subscriptions/nothing/decision"):
        assert admin.get(path).status_code == 404
        assert admin.post(path).status_code == 404
