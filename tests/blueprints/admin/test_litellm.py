"""An admin connects a LiteLLM, makes a plan, reads it, decides what is in conflict, and applies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.domain import identity, sync
from app.extensions import db
from app.workflows import litellm_sync
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.services.litellm import MASTER_KEY, LiteLLMServer

SignedIn = Callable[[str], Browser]


@pytest.fixture(scope="module")
def there() -> Iterator[LiteLLMServer]:
    server = LiteLLMServer()
    yield server
    server.stop()


def connect(admin: Browser, there: LiteLLMServer) -> None:
    form = {"url": there.url, "master_key": MASTER_KEY, "interval_minutes": "0", "timeout_s": "10"}
    assert admin.post("/admin/litellm", **form).status_code == 303


def planned(admin: Browser) -> str:
    location = admin.post("/admin/litellm/plans").headers["Location"]
    db.session.rollback()  # the test's own look is older
    litellm_sync.make_plan(location.rpartition("/")[2])
    return str(location)


def test_a_plan_is_read_decided_and_applied(people: People, signed_in: SignedIn, there: LiteLLMServer) -> None:
    admin = signed_in("admin")
    there.user("owner", rpm_limit=5)
    there.team("t1", "Research", max_budget=10)
    connect(admin, there)
    assert admin.post("/admin/litellm/test").status_code == 303
    path = planned(admin)
    steps = admin.page(path).table("Steps of this plan, in their order")
    assert steps.column("Act") == ["Conflict", "Create In Portico"]
    assert "rpm_limit: not set in Portico, 5 at LiteLLM" in steps.row("owner").text
    assert "budget: 10, in total" in steps.row("Research").text
    [conflict] = db.session.scalars(sync.conflicts()).all()
    assert admin.post(f"/admin/litellm/conflicts/{conflict.id}/litellm").status_code == 303
    path = planned(admin)
    assert admin.post(f"{path}/run").status_code == 303
    db.session.rollback()
    run = sync.last_run()
    assert run is not None
    litellm_sync.go_on(run.id)
    page = admin.page(path)
    assert page.table("Steps of this plan, in their order").column("State") == ["Done", "Done"]
    assert identity.named("owner").rpm == 5
    board = admin.page("/admin/litellm")
    assert board.table("Latest runs, newest first").column("Steps done") == ["2 of 2"]
    assert MASTER_KEY not in admin.get("/admin/litellm").text


def test_a_bad_connection_comes_back_with_its_reasons(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    answer = admin.post("/admin/litellm", url="nowhere", master_key="", interval_minutes="0", timeout_s="10")
    assert answer.status_code == 422
    assert "Enter an address such as" in answer.text


def test_without_a_connection_there_is_only_its_form(people: People, signed_in: SignedIn) -> None:
    sections = signed_in("auditor").page("/admin/litellm").sections
    assert "Connection" in sections
    assert not {"Status", "Latest plans", "Latest runs"} & set(sections)
