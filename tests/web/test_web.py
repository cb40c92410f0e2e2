"""What pages stand on, put together: filters in the deployment's currency and time, and ids of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, render_template_string

from tests.conftest import SetClock


def shown(app: Flask, template: str, **values: object) -> str:
    with app.test_request_context():
        return render_template_string(template, **values)


def test_amounts_are_in_the_currency_of_the_deployment_unless_another_is_given(web_app: Flask) -> None:
    assert shown(web_app, "{{ 1500000000 | money }}") == "$1.50"
    web_app.config["CURRENCY"] = "EUR"
    assert shown(web_app, "{{ 1500000000 | money }} {{ 1500000000 | money('USD') }}") == "€1.50 $1.50"
    web_app.config.pop("CURRENCY")
    assert shown(web_app, "{{ 1500000000 | money_exact }}") == "$1.50"


def test_times_are_told_from_the_applications_clock(web_app: Flask, set_clock: SetClock) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    set_clock(noon)
    hour = shown(web_app, "{{ moment | relative_time }}", moment=noon - timedelta(hours=1))
    assert hour == shown(web_app, "{{ moment | relative_time(now) }}", moment=noon, now=noon + timedelta(hours=1))
    assert hour == "1 h ago"


def test_each_id_is_another(web_app: Flask) -> None:
    first, second = shown(web_app, "{{ unique_id('x') }} {{ unique_id('x') }}").split()
    assert first.startswith("x-") and first != second


@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_every_answer_is_secured(web_app: Flask, path: str) -> None:
    web_app.add_url_rule("/", view_func=lambda: "x")
    assert "Content-Security-Policy" in web_app.test_client().get(path).headers
