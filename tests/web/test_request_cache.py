"""What a page tells twice is asked once, and each request asks anew."""

from __future__ import annotations

import pytest
from flask import Flask

from app.domain.person import Person
from app.domain.teams import Membership
from app.web import request_cache


def test_a_request_asks_once_and_the_next_one_anew() -> None:
    app, questions = Flask("asked"), []

    def ask() -> int:
        questions.append("?")
        return len(questions)

    with app.app_context():
        for expected in (1, 2):
            with app.test_request_context():
                assert [request_cache.cached("number", ask), request_cache.cached("number", ask)] == [
                    expected,
                    expected,
                ]
    with app.test_request_context():
        request_cache.cached("number", ask)
        assert request_cache.cached("other", ask) == 4


def test_what_one_person_is_in_is_not_told_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"ada": [Membership(team_id="red", role="owner"), Membership(team_id="blue", role="member")], "bob": []}
    monkeypatch.setattr(request_cache.teams, "memberships_of", lambda person: held[person.id])
    ada, bob = Person(id="ada"), Person(id="bob")
    with Flask("asked").test_request_context():
        assert request_cache.owned_teams(ada) == ("red",)
        assert request_cache.owned_teams(bob) == ()
        assert [request_cache.role_in(ada, team) for team in ("red", "blue", "green", None)] == [
            "owner",
            "member",
            None,
            None,
        ]
