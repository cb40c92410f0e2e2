"""Passwords: any length within two bounds, all of it counted, and nobody known by how long a refusal takes."""

from __future__ import annotations

import pytest

from app.domain import passwords
from app.domain.errors import Invalid


def test_passwords_have_a_length_and_no_other_rule() -> None:
    for bad in ("x" * 11, "x" * 1025):
        with pytest.raises(Invalid):
            passwords.hashed(bad)
    long = "é" * 100
    kept = passwords.hashed(long)
    assert passwords.matches(long, kept)
    assert not passwords.matches("é" * 99 + "e", kept)  # bcrypt by itself would read 72 bytes only
    assert not passwords.matches(long, None)
    assert passwords.matches("aaaaaaaaaaaa", passwords.hashed("aaaaaaaaaaaa"))


@pytest.mark.parametrize("length", [passwords.SHORTEST, passwords.LONGEST])
def test_the_bounds_themselves_are_lengths_that_do(length: int) -> None:
    assert passwords.matches("x" * length, passwords.hashed("x" * length))


@pytest.mark.parametrize("length", [0, passwords.SHORTEST - 1, passwords.LONGEST + 1])
def test_a_length_beyond_them_is_refused_by_the_name_of_the_field(length: int) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.hashed("x" * length, "new_password")
    assert refused.value.field == "new_password"


def test_who_has_no_password_is_matched_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by the one that refusals are timed with."""
    text = "a password that is known"
    kept = passwords.hashed(text)
    monkeypatch.setattr(passwords, "_nobodys", lambda: kept)
    assert not passwords.matches(text, None)


@pytest.mark.parametrize(
    "other", ["A PASSWORD THAT IS KNOWN", "a password that is known ", "a password that is known\0"]
)
def test_every_letter_counts(other: str) -> None:
    assert not passwords.matches(other, passwords.hashed("a password that is known"))


def test_a_half_of_a_letter_is_a_password_too() -> None:
    """What a client sends may hold surrogates, which have no UTF-8."""
    text = "\ud800" * 12
    assert passwords.matches(text, passwords.hashed(text))
    assert not passwords.matches("\ud801" * 12, passwords.hashed(text))
