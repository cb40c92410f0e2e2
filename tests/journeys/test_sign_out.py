"""Leaving, with the pointer: what lies over a button is seen by no other test."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import PASSWORD

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1360, 390])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_person_signs_out_by_the_menu(visit, newcomer, scripts, width):
    person = visit(java_script_enabled=scripts, viewport={"width": width, "height": 800}).sign_in(newcomer, PASSWORD)
    person.open("/home")
    person.page.locator("summary.user-toggle").click()
    person.page.get_by_role("button", name="Sign out").click(timeout=5_000)
    person.page.wait_for_url("**/sign-in*")
    person.page.goto(f"{person.page.url.split('/sign-in')[0]}/keys")
    assert "/sign-in" in person.page.url
