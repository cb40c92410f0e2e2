"""Searching with the keyboard alone: `/`, a few letters, the arrows, Enter; and without scripts."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READY = "[data-search-box][data-htmx-powered]"  # htmx begins a moment after the page has loaded


def test_a_model_is_reached_by_the_keyboard_alone(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/home")
    field = page.get_by_role("searchbox", name="Search everything")
    page.locator(READY).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("echo-1")
    first = page.locator("#search-hits a").first
    first.wait_for()
    page.keyboard.press("ArrowDown")
    assert first.evaluate("link => link === document.activeElement")
    page.keyboard.press("ArrowUp")
    assert field.evaluate("field => field === document.activeElement")
    page.keyboard.press("Escape")
    page.locator("#search-hits a").first.wait_for(state="detached")
    assert field.input_value() == "echo-1", "Escape closes what was found, and keeps what was typed"
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=echo-1")
    page.keyboard.press("/")
    page.keyboard.type("restricted")  # in the place of what stood there
    page.get_by_role("main").get_by_role("link", name="echo-restricted").first.wait_for()
    page.wait_for_url("**/search?q=restricted")
    person.open("/keys")
    page.locator(READY).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("echo-1")
    first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/echo-1")


def test_what_was_found_goes_when_the_field_is_left(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/home")
    page.locator(READY).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    note = page.get_by_text("Nothing that you can see matches “no such thing”.").first
    note.wait_for()
    page.get_by_role("heading", level=1).click()
    note.wait_for(state="hidden")


def test_searching_works_without_scripts(visit, newcomer):
    person = visit(java_script_enabled=False).sign_in(newcomer, PASSWORD)
    page = person.open("/home")
    page.get_by_role("searchbox", name="Search everything").fill("echo-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=echo-1")
    person.follow("echo-1")
    page.wait_for_url("**/models/echo-1")
