"""A form helps its person: what is wrong is said when a field is left, and what was entered survives a session's end."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_what_was_entered_is_back_after_a_session_has_ended(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/teams/new")
    page.locator("[name=name]").fill("Night shift")
    page.context.clear_cookies()
    page.get_by_role("main").get_by_role("button", name="Create team").click()
    page.wait_for_url(lambda address: "/sign-in" in address)
    page.get_by_label("Username").fill(newcomer)
    page.locator("[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/teams/new")
    person.sees("What you entered is back.")
    assert page.locator("[name=name]").input_value() == "Night shift"


def test_what_the_browser_cannot_know_is_said_when_a_field_is_left(visit, portico):
    admin = visit().sign_in("admin", portico.admin_password)
    page = admin.open("/admin/settings")
    field = page.get_by_label("Default model")
    field.fill("no-such-model")
    field.blur()
    admin.sees("There is no model 'no-such-model'.")
    field.fill("echo-1")
    field.blur()
    page.get_by_text("There is no model").wait_for(state="detached")
