"""An account is linked to a subject of an issuer, and a subject to one account."""

import pytest
from flask import Flask

from app.domain import identities
from app.domain.errors import Conflict, Invalid, NotFound
from app.extensions import db, transaction
from app.workflows import offboarding
from tests.house import People

ISSUER = "https://id.example"


def test_a_subject_belongs_to_one_account(people: People) -> None:
    transaction(lambda: identities.link(people.owner, issuer=f"{ISSUER}/", subject="s", by=people.admin))
    found = identities.find(ISSUER, "s")
    assert found is not None
    assert (found.person_id, found.issuer) == (people.owner.id, ISSUER)
    with pytest.raises(Conflict):
        identities.link(people.stranger, issuer=ISSUER, subject="s", by=people.admin)
    assert identities.find(ISSUER, "S") is None  # subjects are compared letter by letter
    assert identities.find("https://other.example", "s") is None


@pytest.mark.parametrize(("issuer", "subject"), [("", "s"), (ISSUER, " "), (ISSUER, "a\nb"), (ISSUER, "s" * 300)])
def test_what_names_nobody_is_refused(people: People, issuer: str, subject: str) -> None:
    with pytest.raises(Invalid):
        identities.link(people.owner, issuer=issuer, subject=subject, by=None)


def test_an_account_s_own_identity_is_unlinked(people: People) -> None:
    id = transaction(lambda: identities.link(people.owner, issuer=ISSUER, subject="s", by=None).id)
    with pytest.raises(NotFound):
        identities.get_of(people.stranger, id)
    transaction(lambda: identities.unlink(identities.get_of(people.owner, id), by=people.admin))
    assert identities.find(ISSUER, "s") is None


def test_identities_go_with_their_account(inside: Flask, people: People) -> None:
    transaction(lambda: identities.link(people.owner, issuer=ISSUER, subject="s", by=None))
    transaction(lambda: offboarding.delete(people.owner, by=people.admin))
    assert identities.find(ISSUER, "s") is None
    assert db.session.query(identities.Identity).count() == 0
