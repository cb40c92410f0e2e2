"""The status page: every part in words, and the repair of a counter that differs from the books."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import redis
from sqlalchemy import select

from app import clock, store
from app.domain import providers
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.extensions import db, transaction
from app.ledger import budgets, posting
from app.ledger.recount import server_run
from app.runtime import heartbeats
from app.workflows import reconcile
from tests.blueprints.admin.conftest import READ_ONLY, tell
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People, make_model
from tests.page import read

SignedIn = Callable[[str], Browser]
COUNTER = "organisation:default:total"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile.find, "__kwdefaults__", {"pause_s": 0})


def now_ms() -> int:
    return clock.now_ms()


def open_meter(wire: redis.Redis) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})


def report(wire: redis.Redis, **changes: object) -> None:
    """What the background processes leave when all is well."""
    told = {
        "at_ms": now_ms(), "lag_events": 3, "lag_ms": 1500, "posted": 42, "reaped": 2, "replayed": 0, "torn_lines": 0,
        "spools_waiting": 1, "trouble": "",
    }  # fmt: skip
    wire.hset(store.DRAINER_STATUS, mapping={**told, **changes})
    for process in heartbeats.PROCESSES:
        heartbeats.beat(wire, process)
    wire.hset(store.ROLLUPS_STATUS, mapping={"at_ms": now_ms(), "derived": 7, "differences": 0, "first_difference": ""})
    compared(wire, [])


def compared(wire: redis.Redis, found: list[reconcile.Drift]) -> None:
    rows = [{**drift._asdict(), "drift_nano": drift.nano} for drift in found]
    told = {"at_ms": now_ms(), "compared": 5, "drifting": len(rows), "drift": msgspec.json.encode(rows)}
    wire.hset(store.QUOTAS_STATUS, mapping=told)


def drift(people: People, small: Model, wire: redis.Redis, by: int = 7) -> None:
    """A call of 2,000,000 nano-units, counted `by` too many."""
    use(people.owner, small, now_ms(), scopes=(("organisation", "default", "total"),))
    wire.hset(store.spent("organisation", "default", "total"), "spent", 2_000_000 + by)
    compared(wire, [reconcile.Drift("organisation", "default", "total", 2_000_000 + by, 2_000_000)])


def counted(wire: redis.Redis) -> int:
    return int(wire.hget(store.spent("organisation", "default", "total"), "spent") or 0)


def test_scopes_that_drift_are_called_by_their_names(people: People, wire: redis.Redis, signed_in: SignedIn) -> None:
    key, _ = make_key(people.owner, name="thesis notebook")
    compared(
        wire, [reconcile.Drift("key", key, "total", 2, 1), reconcile.Drift("user", people.owner.id, "total", 2, 1)]
    )
    found = signed_in("admin").page("/admin/status").table("Counters that differ from the ledger")
    assert found.column("Counter") == [f"Key thesis notebook {key} total", f"User owner {people.owner.id} total"]


def repairs() -> list[AuditEntry]:
    db.session.rollback()
    return list(db.session.scalars(select(AuditEntry).where(AuditEntry.action == "drift.repair")))


def test_all_is_well(people: People, wire: redis.Redis, signed_in: SignedIn) -> None:
    open_meter(wire)
    report(wire)
    answer = signed_in("admin").get("/admin/status")
    assert 'data-refresh="30"' in answer.text
    page = read(answer)
    assert (page.alert.level, page.alert.heading) == ("success", "Everything works")
    parts = page.table("Components")
    states = {row.name: row.cell("State").text for row in parts.rows}
    assert states.items() >= {
        "Database": "Answers", "Redis": "Answers", "Meter": "Open", "Usage writer": "Runs", "Worker": "Runs", "Clock": "Runs",
        "Time": "Right", "Rollups job": "On time", "Quotas job": "On time",
    }.items()  # fmt: skip
    for name, words in (
        ("Database", ("SQLite 3", "embedded")),
        ("Redis", ("Valkey", "external")),
        ("Usage writer", ("42 posted", "2 holds reaped", "1 spool files waiting")),
    ):
        for word in words:
            assert word in parts.row(name).cell("Detail")
    assert page.definition("Meter") == "Open"
    assert page.definition("Lag") == "1.5 s"
    assert "No drift" in page.section("Counters that differ from the ledger").empty
    assert page.menu.link("Status").is_current
    assert page.menu.link("Failed usage events").href == "/admin/dead-letters"


def test_a_new_portico_shows_its_first_steps_until_a_model_is_served(people: People, signed_in: SignedIn) -> None:
    steps = signed_in("admin").page("/admin/status").section("Set up Portico")
    assert steps.link("Add a provider").href == "/admin/providers/new"
    assert "Invite people" not in [link.text for link in steps.links]  # that is done
    assert not signed_in("auditor").page("/admin/status").section("Set up Portico").links
    transaction(make_model, None, "small")
    assert "Set up Portico" not in signed_in("admin").page("/admin/status").headings


def test_providers_and_models_that_are_not_well_are_told(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    report(wire)
    admin, one = signed_in("admin"), small.deployments[0]
    tell(wire, one.id, answers=20, failures=1)
    page = admin.page("/admin/status")
    assert (page.alert.level, page.alert.heading) == (
        "info", "Portico works, but some providers or models are degraded",
    )  # fmt: skip
    tell(wire, one.id, failures=2)
    page = admin.page("/admin/status")
    assert page.alert.level == "warning" and "The provider Echo is failing" in page.alert
    row = page.section("Providers").row("Echo")
    assert row.cell("Health").texts[0].startswith("Failing since ")
    assert (row.cell("Attempts"), row.cell("Failed"), row.cell("Models")) == ("23", "3", "small")
    assert "10.0.0.7" in page.section("Models that are not well").row("small").cell("Reason")
    transaction(providers.switch, one.provider, "disabled", by=None)
    page = admin.page("/admin/status")
    assert "1 model has no active provider" in page.alert
    assert (
        page.section("Models that are not well").row("small").cell("Health").texts[0].startswith("Unavailable since ")
    )


def test_what_is_wrong_is_said_in_words(people: People, wire: redis.Redis, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    page = admin.page("/admin/status")
    assert page.alert.level == "danger"
    for words in (
        "The meter is closed",
        "The drainer is not running",
        "The worker is not running",
        "The clock is not running",
    ):
        assert words in page.alert, words
    assert "It has not run yet" in page.row("Rollups job").cell("Detail")
    assert "Not compared yet" in page.section("Counters that differ from the ledger").empty
    open_meter(wire)
    report(wire, trouble="posting: the database is away")
    wire.hset(store.METER, mapping={"step_ms": -3_600_000, "step_at": now_ms()})
    wire.hset(
        store.ROLLUPS_STATUS, mapping={"at_ms": now_ms() - 3_600_000, "differences": 1, "first_difference": "hour 7"}
    )
    posting.bury("stream 1-0", b"nonsense", "not JSON")
    part = admin.page("/admin/status", fragment=True)
    assert not part.is_whole
    for words in (
        "Redis's clock recently jumped back by 3600 s", "posting: the database is away", "Periodic jobs are overdue",
        "Usage sums differ", "1 dead letter needs a decision",
    ):  # fmt: skip
        assert words in part.alert, words
    for name, detail in (
        ("Time", "Redis went back by 60 min"),
        ("Usage writer", "posting: the database is away"),
        ("Rollups job", "First: hour 7"),
    ):
        assert part.row(name).cell("Detail") == detail
    assert part.definition("Failed usage events") == "1"


def test_a_drifting_counter_is_moved_by_its_difference_and_audited(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    report(wire)
    drift(people, small, wire)
    admin = signed_in("admin")
    page = admin.page("/admin/status")
    assert "1 counter differs" in page.alert
    [row] = page.table("Counters that differ from the ledger").rows
    assert [row.cell(head) for head in ("Redis", "Ledger", "Difference")] == ["$0.002000007", "$0.002", "+$0.000000007"]
    assert row.form("/admin/drift").sends["counter"] == COUNTER
    assert admin.post("/admin/drift", page="/admin/status", counter=COUNTER).status_code == 303
    assert counted(wire) == 2_000_000
    assert budgets.spent("organisation", "default", "total") == 2_000_000
    (entry,) = repairs()
    assert (entry.actor, entry.object_id) == ("admin", COUNTER)
    assert entry.detail["before"] == {"spent": "0.002000007"}
    page = admin.page("/admin/status")
    assert page.toast == "The counter matches the ledger again."
    assert "No drift" in page.section("Counters that differ from the ledger").empty
    assert admin.post("/admin/drift", counter=COUNTER).status_code == 303
    assert "matches the ledger now" in admin.page("/admin/status").toast
    assert len(repairs()) == 1


@pytest.mark.parametrize("name", ["", "x", "organisation:default", "user:x:day-1000000", "user:x:day-x", "a:b:nothing"])
def test_a_counter_that_is_none_repairs_nothing(
    people: People, wire: redis.Redis, signed_in: SignedIn, name: str
) -> None:
    admin = signed_in("admin")
    assert admin.post("/admin/drift", counter=name).status_code == 303
    assert "Nothing was changed" in admin.page("/admin/status").toast


def test_nothing_is_repaired_while_dead_letters_wait(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    drift(people, small, wire)
    posting.bury("stream 1-0", b"nonsense", "not JSON")
    admin = signed_in("admin")
    [row] = admin.page("/admin/status").table("Counters that differ from the ledger").rows
    assert "Decide about the dead letters first" in (row.buttons[-1].reason or "")
    admin.post("/admin/drift", counter=COUNTER)
    assert "can be the difference" in admin.page("/admin/status").toast
    assert (counted(wire), repairs()) == (2_000_007, [])


def test_a_busy_counter_is_compared_again_until_no_charge_comes_between(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_meter(wire)
    drift(people, small, wire)
    find = reconcile.find

    def charged_meanwhile(*arguments: object) -> object:
        found = find(*arguments)  # type: ignore[arg-type]
        use(people.owner, small, now_ms(), scopes=(("organisation", "default", "total"),))
        wire.hincrby(store.spent("organisation", "default", "total"), "spent", 2_000_000)
        return found

    monkeypatch.setattr(reconcile, "find", charged_meanwhile)
    admin = signed_in("admin")
    admin.post("/admin/drift", counter=COUNTER)
    assert admin.page("/admin/status").toast == "The counter matches the ledger again."
    assert counted(wire) == 4_000_000
    assert len(repairs()) == 1


def test_read_only_admins_see_it_and_cannot_repair(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    drift(people, small, wire)
    auditor = signed_in("auditor")
    [button] = auditor.page("/admin/status").form("/admin/drift").buttons
    assert button.reason == READ_ONLY
    assert auditor.post("/admin/drift", counter=COUNTER).status_code == 403
    assert counted(wire) == 2_000_007
