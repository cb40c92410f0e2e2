"""One that is refused does not stop the others, and what it changed is undone."""

from __future__ import annotations

from app.domain import identity
from app.domain.errors import Conflict
from app.extensions import db
from app.pages.selection import Item, act_on_each
from tests.house import People


def test_each_has_its_own_transaction_and_result(people: People) -> None:
    def act(username: str) -> None:
        identity.update(identity.named(username), by=people.admin, email=f"{username}@example.org")
        if username == "owner":
            raise Conflict("Not this one.")

    items = [Item(name, name, "/") for name in ("owner", "stranger")]
    assert [result.error for result in act_on_each(items, act)] == ["Not this one.", None]
    db.session.rollback()
    assert identity.named("owner").email != "owner@example.org"
    assert identity.named("stranger").email == "stranger@example.org"
