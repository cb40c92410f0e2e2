"""People: their names, who is the first of them, and what a failed sign-in tells and counts."""

import time

import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import current
from app.domain import identity, passwords, sessions
from app.domain.errors import Conflict, Invalid, Throttled, Unauthenticated, Unavailable
from app.extensions import transaction
from tests.house import PASSWORD, People


def test_names_are_one_whatever_their_case(people: People) -> None:
    assert identity.named("OWNER").username == "owner"
    with pytest.raises(Conflict):
        transaction(identity.create, by=None, username="Owner", password=None)
    for name in ("", " x", "a b", "a\0", "ä", "-a", "x" * 65):
        with pytest.raises(Invalid):
            transaction(identity.create, by=None, username=name, password=None)


def test_a_failure_takes_as_long_for_an_unknown_name(people: People) -> None:
    def seconds(username: str) -> float:
        start = time.process_time()
        with pytest.raises(Unauthenticated):
            identity.authenticate(username, "not the password", "192.0.2.1")
        return time.process_time() - start

    passwords._nobodys()
    known = min(seconds("owner") for _ in range(8))
    unknown = min(seconds("nobody") for _ in range(8))
    assert 0.3 < unknown / known < 3


def test_an_address_may_fail_a_hundred_times(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "matches", lambda password, kept: kept is not None and password == PASSWORD)
    for number in range(100):
        with pytest.raises(Unauthenticated):
            identity.authenticate(f"nobody{number}", "wrong", "192.0.2.1")
    with pytest.raises(Throttled):
        identity.authenticate("owner", PASSWORD, "192.0.2.1")
    assert identity.authenticate("owner", PASSWORD, "192.0.2.2").username == "owner"


def test_a_right_guess_among_a_burst_of_wrong_ones_does_not_count(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others_fail_meanwhile(password: str, kept: str | None) -> bool:
        for _ in range(10):
            identity._count_failure("owner", "192.0.2.9")
        return True

    monkeypatch.setattr(passwords, "matches", others_fail_meanwhile)
    with pytest.raises(Throttled):
        identity.authenticate("owner", PASSWORD, "192.0.2.1")


def test_without_redis_nobody_signs_in_and_it_is_said_plainly(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(current, "redis", lambda: gone)
    with pytest.raises(Unavailable):
        identity.authenticate("owner", PASSWORD, "192.0.2.1")
    with pytest.raises(Unavailable):
        sessions.begin(people.owner.id, address="", agent="")
    assert sessions.find("x") is None
    assert sessions.owned_by(people.owner.id) == []


def test_the_first_admin_is_made_on_an_empty_database_only(inside: Flask) -> None:
    person, password = transaction(identity.first_admin, "root", None)
    assert password is not None
    assert person.must_change_password
    assert identity.authenticate("root", password, "192.0.2.1").is_admin
    assert transaction(identity.first_admin, "root", None) is None


def test_an_admins_password_from_the_settings_needs_no_change(inside: Flask) -> None:
    person, password = transaction(identity.first_admin, "root", PASSWORD)
    assert (password, person.must_change_password) == (None, False)


def test_a_password_set_by_an_admin_is_changed_at_the_next_sign_in(people: People) -> None:
    begun = sessions.begin(people.owner.id, address="", agent="")
    kept = passwords.hashed("another long password")
    transaction(identity.update, people.owner, by=people.admin, password=kept)
    assert people.owner.must_change_password
    assert sessions.find(begun) is None


def test_an_address_from_before_the_rule_stays_until_it_is_changed(people: People) -> None:
    old = '"ada, x" <ada@example.org>'
    transaction(lambda: setattr(people.owner, "email", old))
    transaction(identity.update, people.owner, by=people.admin, rpm=5)
    assert (people.owner.email, people.owner.rpm) == (old, 5)
    with pytest.raises(Invalid):
        transaction(identity.update, people.owner, by=people.admin, email="eve@example.org, x@example.org")
