"""The chain of the audit log: whatever is changed later is found, and concurrent writers do not fork it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from app import create_app
from app.domain import audit, audit_chain
from app.domain.audit import AuditEntry
from app.domain.audit_chain import FIELDS, AuditHead, Verification, verify
from app.extensions import db, transaction
from app.setup import migrate
from config import load
from tests.house import People


def write(people: People, many: int = 6) -> list[str]:
    """That many entries, each unlike the others; their ids."""
    return [
        transaction(
            audit.record,
            (people.admin, people.owner)[number % 2],
            f"thing.act{number}",
            "thing",
            str(number),
            name=f"name {number}",
            before={"limit": number},
            after={"limit": number + 1, "words": ["ä", None, 1.5]},
        ).id
        for number in range(many)
    ]


def tamper(*statements: str, **values: Any) -> None:
    with db.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def broken(found: Verification) -> tuple[str | None, str]:
    assert found.result == "broken" and found.first_broken is not None
    return found.first_broken.id, found.first_broken.reason


def test_a_log_that_nobody_touched_is_intact(people: People) -> None:
    write(people)
    found = verify()
    assert (found.result, found.first_broken) == ("intact", None)
    assert found.checked == db.session.scalar(select(AuditHead.position)) == db.session.query(AuditEntry).count()


def test_entries_of_one_transaction_are_linked_in_their_order(people: People) -> None:
    def both() -> None:
        audit.record(people.admin, "thing.a", "thing", "1")
        db.session.flush()
        audit.record(people.admin, "thing.b", "thing", "1")

    transaction(both)
    places = [(entry.action, entry.position) for entry in db.session.scalars(audit.entries(kind="thing"))]
    assert [action for action, _ in sorted(places, key=lambda one: one[1] or 0)] == ["thing.a", "thing.b"]
    assert verify().result == "intact"


def test_what_is_rolled_back_takes_no_place(people: People) -> None:
    def fail() -> None:
        audit.record(people.admin, "thing.a", "thing", "1")
        db.session.flush()
        raise ValueError

    with pytest.raises(ValueError):
        transaction(fail)
    write(people, 1)
    assert verify().result == "intact"


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "id"])
def test_an_edited_entry_is_named(people: People, field: str) -> None:
    ids = write(people)
    value = {"at": "2020-01-01 00:00:00.000000", "detail": '{"after": {}}'}.get(field, "other")
    tamper(f"UPDATE audit_entry SET {field} = :value WHERE id = :id", value=value, id=ids[2])
    assert broken(verify()) == (ids[2], "edited")


@pytest.mark.parametrize(("field", "value"), [("at", "soon"), ("detail", "no JSON"), ("detail", "[" * 100_000)])
def test_an_entry_that_was_made_unreadable_is_named(people: People, field: str, value: str) -> None:
    if db.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL refuses such values")
    ids = write(people)
    tamper(f"UPDATE audit_entry SET {field} = :value WHERE id = :id", value=value, id=ids[2])
    assert broken(verify()) == (ids[2], "edited")


def test_an_entry_whose_code_was_changed_is_named(people: People) -> None:
    ids = write(people)
    tamper("UPDATE audit_entry SET mac = NULL WHERE id = :id", id=ids[2])
    assert broken(verify()) == (ids[2], "edited")


def test_the_entry_after_a_removed_one_is_named(people: People) -> None:
    ids = write(people)
    tamper("DELETE FROM audit_entry WHERE id = :id", id=ids[2])
    assert broken(verify()) == (ids[3], "removed")


@pytest.mark.parametrize("many", [1, 3])
def test_an_end_that_was_cut_off_is_noticed_and_stays_noticed(people: People, many: int) -> None:
    ids = write(people)
    for id in ids[-many:]:
        tamper("DELETE FROM audit_entry WHERE id = :id", id=id)
    found = verify()
    assert broken(found) == (None, "cut_off")
    assert found.first_broken is not None and found.first_broken.position == found.checked + 1
    [later] = write(people, 1)
    assert broken(verify()) == (later, "removed")


@pytest.mark.parametrize(
    "columns",
    [
        ("id",),
        ("position",),
        ("position", "mac"),
        ("at", "actor", "action", "object_id", "object_name", "detail"),
        ("detail",),
        tuple(name for name in FIELDS if name != "id"),
        FIELDS,
    ],
    ids=lambda columns: "-".join(columns)[:40],
)
@pytest.mark.parametrize(("first", "second"), [(1, 4), (2, 3)])
def test_entries_that_changed_places_are_named(
    people: People, columns: tuple[str, ...], first: int, second: int
) -> None:
    ids = write(people)
    table = AuditEntry.__table__
    with db.engine.begin() as connection:
        rows = [
            dict(connection.execute(select(table).where(table.c.id == ids[number])).mappings().one())
            for number in (first, second)
        ]
        place = min(row["position"] for row in rows)
        for name in columns:
            rows[0][name], rows[1][name] = rows[1][name], rows[0][name]
        connection.execute(table.delete().where(table.c.id.in_((ids[first], ids[second]))))
        connection.execute(table.insert(), rows)
    (at_place,) = (row["id"] for row in rows if row["position"] == place)
    assert broken(verify()) == (at_place, "swapped")


def test_an_entry_that_was_put_in_is_named(people: People) -> None:
    write(people)
    db.session.execute(
        AuditEntry.__table__.insert(),
        {"id": "0", "at": people.admin.created_at, "actor": "a", "action": "b", "object_kind": "c", "object_id": "d",
         "detail": {}},
    )  # fmt: skip
    db.session.commit()
    assert broken(verify()) == ("0", "edited")


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM audit_head", "UPDATE audit_head SET position = position - 2", "UPDATE audit_head SET seal = ''"],
)
def test_a_changed_head_is_noticed_and_stops_nobody(people: People, statement: str) -> None:
    write(people)
    tamper(statement)
    assert broken(verify()) == (None, "cut_off")
    [later] = write(people, 1)
    assert broken(verify()) == (later, "removed")


def test_everything_removed_is_cut_off(people: People) -> None:
    write(people)
    tamper("DELETE FROM audit_entry")
    found = verify()
    assert (broken(found), found.checked) == ((None, "cut_off"), 0)


def test_another_key_fits_nothing(app: Flask, people: People) -> None:
    write(people)
    secrets = app.config["SECRETS"]
    app.config["SECRETS"] = type(secrets)(secrets.session_secret, secrets.key_pepper, secrets.encryption_keys, b"other")
    found = verify()
    assert broken(found)[1] == "edited" and found.checked == 0


def test_a_long_log_is_read_in_parts(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_chain, "ROWS_AT_ONCE", 2)
    ids = write(people, 7)
    assert verify().result == "intact"
    tamper("UPDATE audit_entry SET actor = 'x' WHERE id = :id", id=ids[5])
    assert broken(verify()) == (ids[5], "edited")


def test_concurrent_writers_neither_fork_the_chain_nor_fail(app: Flask, people: People) -> None:
    assert_writers_share_the_chain(app, people)


def assert_writers_share_the_chain(app: Flask, people: People, writers: int = 6, each: int = 8) -> None:
    failures: list[BaseException] = []

    def go_on(number: int) -> None:
        try:
            with app.app_context():
                for count in range(each):
                    transaction(audit.record, None, "thing.act", "thing", f"{number}-{count}")
                db.session.remove()
        except BaseException as error:  # told by the test
            failures.append(error)

    before = verify().checked
    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    found = verify()
    assert (found.result, found.checked) == ("intact", before + writers * each)


@pytest.mark.slow
def test_the_migration_links_the_entries_that_there_are(tmp_path: Path) -> None:
    made = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path)}), ())
    old = [name for name in FIELDS if name not in ("actor_id", "object_name", "address")]
    values = {"at": "2026-01-01 12:00:00.000000", "detail": '{"after": {"words": "ä", "limit": 1.50}}'}
    with made.app_context():
        migrate("0023")
        with db.engine.begin() as connection:
            statement = f"INSERT INTO audit_entry ({', '.join(old)}) VALUES ({', '.join(f':{name}' for name in old)})"
            for number in range(5):
                row = {name: f"{name} {number}" for name in old} | values
                connection.execute(text(statement), row)
        migrate()
        assert (verify().result, verify().checked) == ("intact", 5)
        transaction(audit.record, None, "thing.act", "thing", "1")
        assert (verify().result, verify().checked) == ("intact", 6)
        tamper("UPDATE audit_entry SET detail = '{}' WHERE id = 'id 3'")
        assert broken(verify()) == ("id 3", "edited")
        db.session.remove()
        db.engine.dispose()
