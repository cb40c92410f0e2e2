"""Who may do what: one table for the pages, the menu and the management API. A route without a policy stops the start.

It says who may come in at all. Whose things somebody sees is decided where they are looked up.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from flask import Flask

from app.domain.person import Person

Need = Literal["nothing", "person", "reader", "admin"]  # a reader sees everything; admins change it, too
READS = ("GET", "HEAD", "OPTIONS")


class Policy(NamedTuple):
    """What reading and changing need. `scope` is that of access tokens; None where they are of no use."""

    read: Need
    change: Need
    scope: str | None = None

    def need(self, method: str) -> Need:
        return self.read if method in READS else self.change

    def allows(self, person: Person | None, method: str = "GET") -> bool:
        """Whether this person may do that."""
        match self.need(method):
            case "nothing":
                return True
            case "person":
                return person is not None
            case "reader":
                return person is not None and person.sees_everything
            case _:
                return person is not None and person.is_admin


OPEN, PEOPLE, ADMINS = Policy("nothing", "nothing"), Policy("person", "person"), Policy("reader", "admin")
# By the beginning of an endpoint's name: a door's, or a view's where it is another than its door's.
TABLE: dict[str, Policy] = {
    "health": OPEN,
    "static": OPEN,
    "public": OPEN,  # its views ask for a person where they need one
    "portal": PEOPLE,
    "admin": ADMINS,
    "scim": OPEN,  # it has a token of its own
}


def of_scope(scope: str | None) -> Policy:
    """The policy of a route of the management API with this scope; "any" takes every valid token, None asks for none."""
    if scope is None:
        return OPEN
    return Policy(*(ADMINS if scope == "admin" else PEOPLE)[:2], scope)


def declare(endpoint: str, policy: Policy) -> None:
    """Give one endpoint a policy of its own."""
    TABLE[endpoint] = policy


def of(endpoint: str) -> Policy | None:
    """The policy of an endpoint: its own, else its door's; None if it has none."""
    return TABLE.get(endpoint) or TABLE.get(endpoint.partition(".")[0])


def check(app: Flask) -> None:
    """Raise `RuntimeError` for a route that nobody has said who may use."""
    without = sorted({rule.endpoint for rule in app.url_map.iter_rules() if of(rule.endpoint) is None})
    if without:
        raise RuntimeError(f"routes without a policy: {', '.join(without)}; see app.web.policies")
