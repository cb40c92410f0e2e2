"""One table says who may come in; a route that it does not know stops the start."""

from __future__ import annotations

import pytest
from flask import Flask

from app.domain.person import Person
from app.web import policies
from app.web.policies import ADMINS, OPEN, PEOPLE

USER, AUDITOR, ADMIN = (Person(username=role, role=role) for role in ("user", "admin-readonly", "admin"))


def test_a_route_without_a_policy_stops_the_start() -> None:
    app = Flask(__name__)
    policies.check(app)
    app.add_url_rule("/new", "cellar.index", lambda: "")
    with pytest.raises(RuntimeError, match=r"routes without a policy: cellar\.index"):
        policies.check(app)


def test_a_route_s_own_policy_goes_before_its_door_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "TABLE", dict(policies.TABLE))
    policies.declare("admin.people.index", PEOPLE)
    assert (policies.of("admin.people.index"), policies.of("admin.people.detail")) == (PEOPLE, ADMINS)
    assert policies.of("cellar.index") is None


@pytest.mark.parametrize(
    ("policy", "method", "allowed"),
    [
        (OPEN, "POST", (None, USER, AUDITOR, ADMIN)),
        (PEOPLE, "GET", (USER, AUDITOR, ADMIN)),
        (PEOPLE, "DELETE", (USER, AUDITOR, ADMIN)),
        (ADMINS, "GET", (AUDITOR, ADMIN)),
        (ADMINS, "POST", (ADMIN,)),
        (policies.of_scope("admin"), "PATCH", (ADMIN,)),
        (policies.of_scope("usage:read"), "GET", (USER, AUDITOR, ADMIN)),
        (policies.of_scope(None), "POST", (None, USER, AUDITOR, ADMIN)),
    ],
)
def test_a_policy_allows_by_role_and_method(
    policy: policies.Policy, method: str, allowed: tuple[Person | None, ...]
) -> None:
    assert tuple(one for one in (None, USER, AUDITOR, ADMIN) if policy.allows(one, method)) == allowed
