"""The status page: every part in words, and the repair of a counter that differs from the books."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import redis
from sqlalchemy import select

from app import clock, heartbeats, store
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.extensions import db
from app.jobs import drainer, quotas, rollups
from app.ledger import budgets, posting, reconcile
from app.ledger.recount import server_run
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People

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
    wire.hset(drainer.STATUS, mapping={**told, **changes})
    for process in heartbeats.PROCESSES:
        heartbeats.beat(wire, process)
    wire.hset(rollups.STATUS, mapping={"at_ms": now_ms(), "derived": 7, "differences": 0, "first_difference": ""})
    compared(wire, [])


def compared(wire: redis.Redis, found: list[reconcile.Drift]) -> None:
    rows = [{**drift._asdict(), "drift_nano": drift.nano} for drift in found]
    told = {"at_ms": now_ms(), "compared": 5, "drifting": len(rows), "drift": msgspec.json.encode(rows)}
    wire.hset(quotas.STATUS, mapping=told)


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
    page = signed_in("admin").get("/admin/status").text
    assert "thesis notebook</strong>" in page
    assert "owner</strong>" in page


def repairs() -> list[AuditEntry]:
    db.session.rollback()
    return list(db.session.scalars(select(AuditEntry).where(AuditEntry.action == "drift.repair")))


def test_all_is_well(people: People, wire: redis.Redis, signed_in: SignedIn) -> None:
    open_meter(wire)
    report(wire)
    page = signed_in("admin").get("/admin/status").text
    for words in (
        "Everything works", "Open", "Runs", "42 posted", "2 holds reaped", "1 spool files waiting", "1.5 s", "No drift",
        "On time", "embedded", "external", "SQLite 3", "Valkey", 'data-refresh="30"', ">Status<", ">Dead letters<",
    ):  # fmt: skip
        assert words in page, words


def test_what_is_wrong_is_said_in_words(people: People, wire: redis.Redis, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    page = admin.get("/admin/status").text
    for words in (
        "The meter is closed",
        "The drainer is not running",
        "The worker is not running",
        "The clock is not running",
        "It has not run yet",
        "Not compared yet",
    ):
        assert words in page, words
    open_meter(wire)
    report(wire, trouble="posting: the database is away")
    wire.hset(store.METER, mapping={"step_ms": -3_600_000, "step_at": now_ms()})
    wire.hset(rollups.STATUS, mapping={"at_ms": now_ms() - 3_600_000, "differences": 1, "first_difference": "hour 7"})
    posting.bury("stream 1-0", b"nonsense", "not JSON")
    part = admin.get("/admin/status", fragment=True).text
    assert part.lstrip().startswith("<div")
    for words in (
        "The time of Redis went back by 3600 s", "Redis went back by 60 min",
        "posting: the database is away", "Periodic jobs are overdue", "Sums of usage differ",
        "hour 7", "1 dead letter waits for a decision",
    ):  # fmt: skip
        assert words in part, words


def test_a_drifting_counter_is_moved_by_its_difference_and_audited(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    report(wire)
    drift(people, small, wire)
    admin = signed_in("admin")
    page = admin.get("/admin/status").text
    for words in ("1 counter differs", "+$0.000000007", "$0.002000007", COUNTER):
        assert words in page, words
    assert admin.post("/admin/drift", page="/admin/status", counter=COUNTER).status_code == 303
    assert counted(wire) == 2_000_000
    assert budgets.spent("organisation", "default", "total") == 2_000_000
    (entry,) = repairs()
    assert (entry.actor, entry.object_id) == ("admin", COUNTER)
    assert entry.detail["before"] == {"spent": "0.002000007"}
    page = admin.get("/admin/status").text
    assert "says what the books say again" in page
    assert "No drift" in page
    assert admin.post("/admin/drift", counter=COUNTER).status_code == 303
    assert "does not differ from the books now" in admin.get("/admin/status").text
    assert len(repairs()) == 1


@pytest.mark.parametrize("name", ["", "x", "organisation:default", "user:x:day-1000000", "user:x:day-x", "a:b:nothing"])
def test_a_counter_that_is_none_repairs_nothing(
    people: People, wire: redis.Redis, signed_in: SignedIn, name: str
) -> None:
    admin = signed_in("admin")
    assert admin.post("/admin/drift", counter=name).status_code == 303
    assert "Nothing was changed" in admin.get("/admin/status").text


def test_nothing_is_repaired_while_dead_letters_wait(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    drift(people, small, wire)
    posting.bury("stream 1-0", b"nonsense", "not JSON")
    admin = signed_in("admin")
    assert "Decide about the dead letters first" in admin.get("/admin/status").text
    admin.post("/admin/drift", counter=COUNTER)
    assert "may be what the books lack" in admin.get("/admin/status").text
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
    assert "says what the books say again" in admin.get("/admin/status").text
    assert counted(wire) == 4_000_000
    assert len(repairs()) == 1


def test_read_only_admins_see_it_and_cannot_repair(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    open_meter(wire)
    drift(people, small, wire)
    auditor = signed_in("auditor")
    page = auditor.get("/admin/status").text
    assert "Your role may read everything here and change nothing." in page
    assert 'aria-disabled="true"' in page.split('name="counter"')[1].split("</form>")[0]
    assert auditor.post("/admin/drift", counter=COUNTER).status_code == 403
    assert counted(wire) == 2_000_007
