"""A person looks after where they are signed in: a browser that they sign out is led to the form at once."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_browser_is_signed_out_from_another(visit, newcomer):
    lost = visit().sign_in(newcomer, PASSWORD)
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/home")
    page.locator("summary").filter(has_text=newcomer).click()
    page.get_by_role("link", name="Account", exact=True).click()
    person.follow("Sessions")
    page.get_by_text("This browser").wait_for()
    page.get_by_role("main").get_by_role("button", name="Sign out Chrome on").click()
    person.sees("is signed out.")
    assert page.get_by_role("main").get_by_role("button", name="Sign out").count() == 0
    lost.open("/home")
    assert "/sign-in" in lost.page.url


def test_a_theme_for_every_browser_goes_before_that_of_this_one(visit, newcomer):
    person = visit(color_scheme="light").sign_in(newcomer, PASSWORD)
    page = person.open("/account?section=preferences")
    dark = "document.documentElement.classList.contains('pf-v6-theme-dark')"
    page.get_by_label("Theme", exact=True).click()
    page.get_by_role("button", name="Light").click()
    page.get_by_role("radio", name="Dark").check()
    person.press("Save preferences")
    person.sees("Your preferences are saved.")
    assert page.evaluate(dark)
    other = visit(color_scheme="light", java_script_enabled=False).sign_in(newcomer, PASSWORD)
    assert "pf-v6-theme-dark" in (other.open("/home").locator("html").get_attribute("class") or ""), (
        "without scripts too"
    )
