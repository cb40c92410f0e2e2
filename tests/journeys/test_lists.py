"""Lists: one that does not come says so in its place, and the menu of a row can be seen however short the list is."""

from __future__ import annotations

import pytest
import requests
from playwright.sync_api import Route

from tests.journeys.conftest import PASSWORD
from tests.services.waiting import PATIENCE_S

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


WHOLLY_SEEN = """menu => {
  const { left, right, top, bottom } = menu.getBoundingClientRect();
  return [[left + 5, top + 5], [right - 5, bottom - 5]].every(([x, y]) => menu.contains(document.elementFromPoint(x, y)));
}"""


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("height", [900, 560])
def test_the_menu_of_the_only_row_is_not_cut_off(visit, newcomer, portico, admin_api, scripts, height):
    token = requests.post(
        f"{portico.url}/token", {"username": newcomer, "password": PASSWORD}, timeout=PATIENCE_S
    ).json()["access_token"]
    made = requests.post(
        f"{portico.url}/api/keys",
        json={"name": "app"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=PATIENCE_S,
    )
    assert made.status_code == 201, made.text
    person = visit(java_script_enabled=scripts, viewport={"width": 1360, "height": height})
    page = person.sign_in(newcomer, PASSWORD).open("/keys")
    page.locator("table details[data-menu] > summary").click()
    menu = page.locator("table .menu-panel")
    menu.wait_for()
    if scripts or height == 900:  # else it is for the person to scroll
        assert menu.evaluate(WHOLLY_SEEN)


def test_a_column_that_was_hidden_stays_hidden_on_every_visit(visit, portico, newcomer):
    admin = visit(viewport={"width": 1440, "height": 900}).sign_in("admin", portico.admin_password)
    page = admin.open("/admin/people")
    head = page.get_by_role("columnheader", name="Groups")
    head.wait_for()
    page.locator("summary").filter(has_text="Columns").click()
    page.get_by_role("checkbox", name="Groups").uncheck()
    head.wait_for(state="hidden")
    page = admin.open("/admin/people?role=user")
    page.get_by_role("columnheader", name="Role").wait_for()
    head.wait_for(state="hidden")
    page.locator("summary").filter(has_text="Columns").click()
    page.get_by_role("checkbox", name="Groups").check()
    head.wait_for()
