"""What htmx asks for: a part of a page, or the whole of it."""

from __future__ import annotations

import pytest
from flask import Flask

from app.web.htmx import htmx

ASKS = {"HX-Request": "true"}


@pytest.mark.parametrize(
    ("headers", "partial"),
    [
        ({}, False),
        (ASKS, True),
        ({**ASKS, "HX-Request-Type": "partial"}, True),
        ({**ASKS, "HX-Request-Type": "full"}, False),  # a boosted link
        ({**ASKS, "HX-History-Restore-Request": "true"}, False),
        ({"HX-Request-Type": "partial"}, False),  # not htmx at all
    ],
)
def test_a_part_is_for_who_asks_for_one(web_app: Flask, headers: dict[str, str], partial: bool) -> None:
    with web_app.test_request_context(headers=headers):
        assert htmx.is_partial is partial


@pytest.mark.parametrize(
    ("element", "id"),
    [("tbody#rows", "rows"), ("a#x#y", "x#y"), ("#rows", "rows"), ("tbody", None), ("a#", None), ("", None)],
)
def test_an_element_is_known_by_its_id(web_app: Flask, element: str, id: str | None) -> None:
    with web_app.test_request_context(headers={**ASKS, "HX-Source": element, "HX-Target": element}):
        assert (htmx.source, htmx.source_id, htmx.target_id) == (element, id, id)
    with web_app.test_request_context(headers=ASKS):
        assert (htmx.source, htmx.source_id, htmx.target_id) == (None, None, None)
