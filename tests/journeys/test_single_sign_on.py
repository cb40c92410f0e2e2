"""Signing in with a real identity provider in a real browser, and out of both again."""

from __future__ import annotations

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe

from tests.journeys.conftest import Visitor
from tests.services.identity_providers import simple_provider

pytestmark = [pytest.mark.browser, pytest.mark.services, pytest.mark.slow]


def test_a_person_signs_in_with_the_provider_and_out_of_both(browser, start_portico):
    with simple_provider() as issuer:
        requests.put(f"{issuer}/users/ada", json={"preferred_username": "ada", "groups": ["ml"]}, timeout=10)
        portico = start_portico(
            CONFIG_OIDC_ISSUER=issuer,
            CONFIG_OIDC_CLIENT_ID="portico",
            CONFIG_OIDC_CLIENT_SECRET="a secret of the client",
            CONFIG_OIDC_NAME="Example ID",
            CONFIG_OIDC_TEAM_GROUPS="{ml: Machine learning}",
            CONFIG_DEMO_ENABLED="false",
        )
        for width in (1360, 390):
            context = browser.new_context(viewport={"width": width, "height": 800}, bypass_csp=False)
            person = Visitor(context, portico)
            page = person.open("/teams")
            page.get_by_role("link", name="Sign in with Example ID").click()
            page.locator("input[name=sub]").last.fill("ada")
            page.get_by_role("button", name="Authorize").last.click()
            page.wait_for_url(f"{portico.url}/teams")
            person.sees("Machine learning")
            page.locator("summary.user-toggle").click()
            page.get_by_role("button", name="Sign out").click()
            page.wait_for_url(f"{issuer}/**")
            page.goto(f"{portico.url}/keys")
            assert "/sign-in" in page.url
            assert person.complaints == []
            context.close()
        context = browser.new_context(bypass_csp=True)
        page = Visitor(context, portico).open("/sign-in")
        assert Axe().run(page).response["violations"] == []
        context.close()
