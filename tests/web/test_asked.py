"""What a page tells twice is asked once, and each request asks anew."""

from __future__ import annotations

from flask import Flask

from app.web import asked


def test_a_request_asks_once_and_the_next_one_anew() -> None:
    app, questions = Flask("asked"), []

    def ask() -> int:
        questions.append("?")
        return len(questions)

    with app.app_context():
        for expected in (1, 2):
            with app.test_request_context():
                assert [asked.once("number", ask), asked.once("number", ask)] == [expected, expected]
    with app.test_request_context():
        asked.once("number", ask)
        assert asked.once("other", ask) == 4
