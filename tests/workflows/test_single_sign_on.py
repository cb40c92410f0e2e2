"""Which account, role and teams a sign-in gives; tests/blueprints/public/test_oidc.py signs in for real."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from flask import Flask

from app.domain import identities, identity, teams
from app.extensions import transaction
from app.oidc.provider import Profile
from app.workflows import single_sign_on
from config import Oidc
from tests.house import People

ISSUER = "https://id.example"


@pytest.fixture
def provider(inside: Flask, people: People) -> Iterator[People]:
    config = inside.config["PORTICO"]
    oidc = Oidc(issuer=ISSUER, client_id="portico", admin_groups=["admins"], team_groups={"ml": "ML", "dl": "ml"})
    inside.config["PORTICO"] = msgspec.structs.replace(config, oidc=oidc)
    yield people
    inside.config["PORTICO"] = config


def profile(**values: object) -> Profile:
    return msgspec.convert({"issuer": ISSUER, "subject": "s", "username": "ada", **values}, Profile)


def test_a_plan_changes_nothing(provider: People) -> None:
    found = single_sign_on.plan(profile(groups=["ml", "dl", "admins"]))
    assert (found.account, found.username, found.role, found.add, found.remove) == ("new", "ada", "admin", ["ml"], [])
    assert identity.find("ada") is None
    assert teams.called("ml") is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [("Ada Lovelace", "Ada-Lovelace"), ("..ada", "ada"), ("Ünal", "nal"), ("日本", "user"), ("a" * 300, "a" * 64)],
)
def test_a_name_becomes_one_that_a_username_can_be(told: str, expected: str) -> None:
    assert single_sign_on.username_of(profile(username=told)) == expected


def test_an_account_of_scim_is_linked_by_its_external_id_or_its_name(provider: People) -> None:
    def provision() -> None:
        for name, external_id in (("ada", "s"), ("grace", None)):
            person = identity.create(by=None, username=name, password=None)
            person.scim, person.external_id = {}, external_id

    transaction(provision)
    assert single_sign_on.plan(profile(username="whoever")).username == "ada"
    by_email = profile(subject="t", username="other", email="grace")
    assert single_sign_on.plan(by_email).username == "grace"
    unproved = msgspec.structs.replace(by_email, email_verified=False)
    assert single_sign_on.plan(unproved).account == "new"
    transaction(lambda: identities.link(identity.named("grace"), issuer=ISSUER, subject="first", by=None))
    assert single_sign_on.plan(by_email).account == "new"  # another has it already


def test_an_owner_whom_the_provider_takes_out_stays_while_nobody_else_owns_the_team(provider: People) -> None:
    person = transaction(single_sign_on.admit, profile(groups=["ml"]))
    assert person is not None

    def promote() -> None:
        team = teams.called("ML")
        assert team is not None
        teams.put_member(team, identity.named("ada"), by=None, role="owner")
        teams.put_member(team, identity.named("owner"), by=None)

    transaction(promote)
    transaction(single_sign_on.admit, profile(groups=[]))
    assert [one.role for one in teams.memberships_of(identity.named("ada"))] == ["owner"]


def test_an_e_mail_that_the_provider_has_not_verified_is_not_kept(provider: People) -> None:
    transaction(single_sign_on.admit, profile(email="ada@example.org", email_verified=False))
    assert identity.named("ada").email is None
