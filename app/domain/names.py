"""Validates names that people give to objects and groups, and e-mail addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.domain.errors import Invalid

LONGEST = 100
# Control characters, line and paragraph separators, and marks that change the text direction.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

GROUP = re.compile(r"\w[\w ./:@+-]{0,99}")
MOST_GROUPS = 50
LONGEST_EMAIL = 254
# Characters of an address that needs no quoting (RFC 5322, dot-atom), as browsers accept them, except the backtick.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*")


def checked(name: str) -> str:
    """The name without surrounding whitespace. Raises `Invalid` naming `name`."""
    name = name.strip()
    if not 1 <= len(name) <= LONGEST:
        raise Invalid(f"Enter a name of 1 to {LONGEST} characters.", "name")
    if _UNFIT.search(name):
        raise Invalid("A name can't contain line breaks, control characters or text direction marks.", "name")
    return name


def is_email(text: str) -> bool:
    """Whether the text is one plain address that is safe in a mail header: no display name, no quotes, no list."""
    return len(text) <= LONGEST_EMAIL and _EMAIL.fullmatch(text) is not None


def checked_email(text: str) -> str:
    """The address without surrounding whitespace. Raises `Invalid` naming `email`."""
    text = text.strip()
    if not is_email(text):
        raise Invalid("Enter an e-mail address such as ada@example.org.", "email")
    return text


def checked_groups(groups: Iterable[str]) -> list[str]:
    """The group names without duplicates, in order. Raises `Invalid` naming `groups`."""
    wanted = list(dict.fromkeys(group.strip() for group in groups if group.strip()))
    for group in wanted:
        if not GROUP.fullmatch(group):
            raise Invalid(
                f"{group[:40]!r} is not a valid group name. Use letters, digits, spaces and . / : @ + - _.", "groups"
            )
    if len(wanted) > MOST_GROUPS:
        raise Invalid(f"Use at most {MOST_GROUPS} groups.", "groups")
    return wanted
