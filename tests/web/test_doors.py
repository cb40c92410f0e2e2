"""A door finds the blueprints of its folder; modules without one, such as forms, bring no routes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from flask import Flask

from app.web.doors import door_of

KEYS = """
from flask import Blueprint

bp = Blueprint("keys", __name__)


@bp.get("/keys")
def index():
    return "the keys"
"""


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "back_door"
    folder.mkdir()
    for name, text in (("__init__", ""), ("keys", KEYS), ("key_forms", "WORDS = 1")):
        (folder / f"{name}.py").write_text(text)
    for module in ("back_door", "back_door.keys", "back_door.key_forms"):  # each test imports its own
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return "back_door"


def test_a_noun_of_the_folder_is_nested_in_the_door(door: str) -> None:
    app = Flask("doors")
    app.register_blueprint(door_of(door, "back"))
    assert {"static", "back.keys.index"} == app.view_functions.keys()
    assert app.test_client().get("/keys").text == "the keys"


def test_what_the_door_asks_first_is_asked_before_each_noun(door: str) -> None:
    app, back = Flask("doors"), door_of(door, "back")
    back.before_request(lambda: ("closed", 403))
    app.register_blueprint(back)
    answer = app.test_client().get("/keys")
    assert (answer.status_code, answer.text) == (403, "closed")


def test_two_applications_have_the_same_nouns(door: str) -> None:
    for _ in range(2):
        app = Flask("doors")
        app.register_blueprint(door_of(door, "back"))
        assert app.test_client().get("/keys").status_code == 200
