"""`audit verify`, as an operator gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from app.domain import audit
from app.extensions import db, transaction
from tests.house import People


def test_audit_verify_says_whether_the_log_is_intact(
    people: People,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = [transaction(audit.record, people.admin, "thing.act", "thing", "1").id for _ in range(3)]
    assert run("audit", "verify") == 0
    assert "The audit log is intact: " in capsys.readouterr().out.splitlines()[-1]
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'nobody' WHERE id = :id"), {"id": ids[1]})
    assert run("audit", "verify") == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"entry {ids[1]} was edited.")


def test_a_log_that_was_set_back_with_its_head_is_found_by_a_head_that_was_kept(
    people: People,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def act() -> None:
        transaction(audit.record, people.admin, "thing.act", "thing", "1")

    def verified(*more: str) -> tuple[int, list[str]]:
        return run("audit", "verify", *more), capsys.readouterr().out.splitlines()

    def copy() -> tuple[int, tuple[object, ...]]:
        with db.engine.connect() as connection:
            last = connection.scalar(text("SELECT max(position) FROM audit_entry"))
            head = connection.execute(text("SELECT position, mac, seal FROM audit_head")).one()
        return int(last or 0), tuple(head)

    act()
    last, old_head = copy()
    act()
    _, (line, _) = verified()
    kept = line.removeprefix("Head: ")
    assert kept.startswith(f"{last + 1}:")
    act()
    assert verified("--head", kept)[0] == 0
    with db.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_entry WHERE position > :last"), {"last": last})
        restore = text("UPDATE audit_head SET position = :p, mac = :m, seal = :s")
        connection.execute(restore, dict(zip("pms", old_head, strict=True)))
    db.session.expire_all()
    assert verified()[0] == 0, "the chain alone does not show it"
    status, lines = verified("--head", kept)
    assert (status, lines[-1].startswith("The audit log was set back: ")) == (1, True)
    act()  # another entry in that place
    assert verified("--head", kept)[0] == 1
    with pytest.raises(SystemExit) as refused:
        run("audit", "verify", "--head", "1042")
    assert refused.value.code == 2
