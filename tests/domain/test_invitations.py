"""Invitations: a link works once, until its end, and only its digest is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from app.clock import now
from app.domain import invitations, passwords
from app.domain.errors import Conflict, Invalid, NotFound
from app.extensions import db, transaction
from tests.house import PASSWORD, People


def invite(people: People, **values: object) -> tuple[str, str]:
    """The id of an invitation, and its token."""
    made, link = transaction(invitations.invite, by=people.admin, link="https://p.example/invitation/{token}", **values)
    return made.id, link.rpartition("/")[2]


def accept(token: str, username: str = "ada") -> None:
    transaction(invitations.accept, token, username=username, password=passwords.hashed(PASSWORD))


def test_an_invitation_gives_its_role_groups_and_address_once(people: People) -> None:
    id, token = invite(people, email="ada@example.org", role="admin-readonly", groups=["lab"])
    kept = str(db.session.execute(text("SELECT * FROM invitation")).all())
    assert token not in kept
    accept(token)
    made = invitations.invitation(id)
    person = db.session.get(type(people.admin), made.person_id)
    assert person is not None
    assert (person.username, person.email, person.role, person.groups) == (
        "ada",
        "ada@example.org",
        "admin-readonly",
        ["lab"],
    )
    assert (made.status, invitations.opened_by(token)) == ("used", None)
    with pytest.raises(NotFound):
        accept(token, "eve")
    with pytest.raises(Conflict):
        transaction(invitations.withdraw, made, by=people.admin)


def test_a_name_that_is_taken_leaves_the_invitation_open(people: People) -> None:
    _, token = invite(people)
    with pytest.raises(Conflict):
        accept(token, "OWNER")
    accept(token)


def test_one_that_is_over_or_withdrawn_or_made_up_opens_nothing(people: People) -> None:
    first, ended = invite(people)
    second, withdrawn = invite(people)
    transaction(lambda: setattr(invitations.invitation(first), "expires_at", now() - timedelta(seconds=1)))
    for _ in range(2):
        transaction(lambda: invitations.withdraw(invitations.invitation(second), by=people.admin))
    assert [invitations.invitation(id).status for id in (first, second)] == ["expired", "withdrawn"]
    for token in (ended, withdrawn, "made-up", "ä", "x" * 5000):
        assert invitations.opened_by(token) is None
        with pytest.raises(NotFound):
            accept(token)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"email": "nowhere"}, "email"),
        ({"email": "ada@example.org,eve@example.org"}, "email"),
        ({"email": "Ada <ada@example.org>"}, "email"),
        ({"role": "emperor"}, "role"),
        ({"days": 0}, "days"),
        ({"days": 91}, "days"),
        ({"groups": ["<b>"]}, "groups"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(people: People, values: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        invite(people, **values)
    assert refused.value.field == field
