"""A list that does not come says so in its place, and leads on."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route

from tests.journeys.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("journeys")]


@pytest.mark.parametrize("trouble", ["an error", "no answer"])
def test_a_list_that_fails_to_load_says_so_and_can_be_tried_again(visit, newcomer, trouble):
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/models")

    def fail(route: Route) -> None:
        if trouble == "an error":
            route.fulfill(status=503, body="")
        else:
            route.abort()

    page.route("**/models?*", fail)
    page.get_by_role("main").get_by_role("searchbox").fill("echo")
    page.get_by_text("This could not be loaded").wait_for()
    page.unroute("**/models?*")
    page.get_by_role("main").get_by_role("link", name="Try again").click()
    page.get_by_role("link", name="Echo", exact=True).wait_for()
    person.complaints.clear()  # htmx tells the console what the test did to it
