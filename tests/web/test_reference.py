"""The API's description goes from the door that serves the API to the one that shows it."""

from __future__ import annotations

from flask import Flask

from app.web import reference


def test_what_the_api_told_is_shown_as_it_is_now() -> None:
    app, documents = Flask("described"), [{"openapi": "3.1.0"}, {"openapi": "3.1.1"}]
    reference.register_document(app, lambda: documents.pop(0))
    with app.app_context():
        assert (reference.document(), reference.document()) == ({"openapi": "3.1.0"}, {"openapi": "3.1.1"})


def test_a_process_without_the_api_has_none() -> None:
    with Flask("alone").app_context():
        assert reference.document() is None
