"""Fields that nobody asked for change nothing: whatever a form or a body bears beside its own fields, the same happens.

Each changing route is asked three times in the same world: twice as it should be, which tells what differs by itself
(ids, times), and once with fields that belong to others: whose it is, what was spent, who may do what.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from flask_wtf import FlaskForm
from sqlalchemy import inspect, text

from app.blueprints.api.contract import OPERATIONS
from app.extensions import db
from tests.test_access import (  # noqa: F401
    DOORS,
    Row,
    World,
    app,
    config,
    database_url,
    migrated,
    quick_hashes,
    rows,
    told,
    valkey_url,
    visitors,
    wire,
    world,
)

pytestmark = pytest.mark.slow

EXTRA = {
    "id": "chosen",
    "role": "admin",
    "scopes": "admin",
    "is_admin": "true",
    "disabled": "true",
    "must_change_password": "true",
    "owner": "stranger",
    "owner_id": "stranger",
    "user": "stranger",
    "username": "stranger",
    "user_id": "stranger",
    "person": "stranger",
    "person_id": "stranger",
    "decided_by": "stranger",
    "team_id": "chosen",
    "status": "suspended",
    "state": "sent",
    "spent": "0",
    "spent_nano": "0",
    "reserved": "0",
    "cost": "0",
    "created_at": "2001-01-01T00:00:00Z",
    "revoked_at": "2001-01-01T00:00:00Z",
    "read_at": "2001-01-01T00:00:00Z",
    "digest": "chosen",
    "prefix": "chosen",
    "version": "99",
}

Cell = tuple[str, str]
Present = dict[str, list[dict[str, Any]]]


def present(world: World) -> Present:
    """Everything that the database holds."""
    with world.app.app_context():
        found = {
            table: [dict(row._mapping) for row in db.session.execute(text(f'SELECT * FROM "{table}"'))]
            for table in inspect(db.engine).get_table_names()
        }
        db.session.remove()
    return found


def unsettled(first: Present, second: Present) -> set[Cell]:
    """The columns in which the same act differs from one time to the next."""

    def values(state: Present, table: str, column: str) -> Counter[str]:
        return Counter(str(row[column]) for row in state[table])

    return {
        (table, column)
        for table, found in first.items()
        for column in (found or [{}])[0]
        if values(first, table, column) != values(second, table, column)
    }


def settled(state: Present, but: set[Cell]) -> dict[str, Counter[str]]:
    return {
        table: Counter(str({name: value for name, value in row.items() if (table, name) not in but}) for row in found)
        for table, found in state.items()
    }


def asker_of(row: Row) -> str:
    """The least of those who are let in."""
    order = ("nobody", "owner", "member", "lead", "admin")
    answers = dict(zip(row.visitors, row.expected, strict=True))
    return next((who for who in order if answers.get(who) in ("200", "201", "204", "303")), "admin")


@pytest.fixture
def form_fields(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the fields of every form that was read since it was cleared."""
    known: set[str] = set()
    made = FlaskForm.__init__

    def note(form: FlaskForm, *args: Any, **values: Any) -> None:
        made(form, *args, **values)
        known.update(field.name for field in form)

    monkeypatch.setattr(FlaskForm, "__init__", note)
    return known


# What signing in alone writes down.
OF_SIGNING_IN = {"access_token", "refresh_token", "audit_entry", "pending_change"}
SIGNED_IN = {("person", "last_seen_at")}


def changed(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> list[str]:
    """What is different, table by table, in words."""
    return [
        f"{table}: {after[table] - before[table]} for {before[table] - after[table]}"
        for table in before
        if before[table] != after[table]
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("door", [door for door in DOORS if door != "api"])
def test_fields_that_nobody_asked_for_change_nothing(world: World, form_fields: set[str], door: str) -> None:
    different, asked = [], 0
    for row in rows():
        if row.method == "GET" or world.endpoint(row).partition(".")[0] != door:
            continue
        who = asker_of(row)
        form_fields.clear()
        states, answers = [], []
        for _ in range(2):
            answers.append(told(world.ask(row, who)))
            states.append(present(world))
            world.restore()
        extra = {name: value for name, value in EXTRA.items() if name not in {*row.body, *form_fields}}
        answers.append(told(world.ask(row, who, **extra)))
        but = unsettled(*states)
        before, after = settled(states[0], but), settled(present(world), but)
        world.restore()
        asked += 1
        if len(set(answers)) > 1:
            different.append(f"{row.method} {row.path} by {who}: answered {answers}")
        different += [f"{row.method} {row.path} by {who}: {change}" for change in changed(before, after)]
    assert different == []
    assert asked > 3


@pytest.mark.timeout(300)
def test_members_that_a_route_does_not_know_are_refused_and_change_nothing(world: World) -> None:
    bodies = {operation.name: operation.body for operation in OPERATIONS}
    different, asked = [], 0
    for row in rows():
        door, _, name = world.endpoint(row).partition(".")
        body = bodies.get(name) if door == "api" else None
        if row.method == "GET" or body is None:
            continue
        who, before = asker_of(row), settled(present(world), SIGNED_IN)
        own = {*row.body, *body.__struct_fields__}
        answer = world.ask(row, who, **{name: value for name, value in EXTRA.items() if name not in own})
        after = settled(present(world), SIGNED_IN)
        world.restore()
        asked += 1
        if answer.status_code != 422:
            different.append(f"{row.method} {row.path} by {who}: answered {answer.status_code}")
        found = {table: rows for table, rows in before.items() if table not in OF_SIGNING_IN}
        different += [f"{row.method} {row.path} by {who}: {change}" for change in changed(found, after)]
    assert different == []
    assert asked > 30
