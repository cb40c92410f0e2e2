"""A person goes, and with them all that was theirs: sessions, tokens, keys, subscriptions and their budgets.

It stands above the nouns it ends, so that none of them has to know the others. The books keep what was used.
"""

from __future__ import annotations

from app.domain import budgets, identity, keys, sessions, subscriptions, tokens
from app.domain.identity import Person


def delete(person: Person, *, by: Person | None) -> None:
    """Removes a person with everything that was theirs. Raises `Conflict` for the last admin."""
    id = person.id
    tokens.forget(person)
    keys.forget(person)
    subscriptions.forget(person)
    budgets.forget("user", id)
    identity.remove(person, by=by)
    sessions.end_all(id)  # last: they are in Redis, which knows no way back when the rest is refused
