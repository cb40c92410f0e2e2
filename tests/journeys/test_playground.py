"""People who try a model: the first answer, Stop, a spent budget, and what stored markup does, which is nothing."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.journeys.conftest import PASSWORD
from tests.services.portico import Portico
from tests.services.waiting import PATIENCE_S, until

pytestmark = pytest.mark.browser

NARROW = {"width": 390, "height": 844}
BAD = "# A plan\n\n<img src=x onerror=document.title=1> <script>document.title=1</script> **bold** [x](javascript:alert(1))"


@pytest.fixture
def slow(portico: Portico, admin_api: requests.Session) -> str:
    """A model that says twenty words a second; its name."""
    body: dict[str, Any] = {"type": "api", "name": "Slow", "provider": "echo", "config": {"delay_ms": 50}}
    provider = admin_api.post(f"{portico.url}/api/providers", json=body, timeout=PATIENCE_S).json()
    if "id" in provider:
        price = {"input_per_mtok": "1", "output_per_mtok": "2"}
        deployments = [{"provider_id": provider["id"], "upstream_model": "echo"}]
        body = {
            "name": "slow",
            "display_name": "Slow",
            "capabilities": ["chat"],
            "price": price,
            "deployments": deployments,
        }
        assert admin_api.post(f"{portico.url}/api/models", json=body, timeout=PATIENCE_S).status_code == 201
    return "slow"


def requests_of(api: requests.Session, portico: Portico) -> list[dict[str, Any]]:
    """A person's requests, once the first has been posted."""
    rows: list[dict[str, Any]] = []

    def are_there() -> bool:
        rows[:] = api.get(f"{portico.url}/api/requests", timeout=PATIENCE_S).json()["data"]
        return bool(rows)

    until(are_there)
    return rows


def own_api(portico: Portico, username: str) -> requests.Session:
    session = requests.Session()
    told = session.post(f"{portico.url}/token", {"username": username, "password": PASSWORD}, timeout=PATIENCE_S).json()
    session.headers["Authorization"] = f"Bearer {told['access_token']}"
    return session


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_the_first_answer_is_three_clicks_from_subscribing_and_markup_stays_text(
    visit, portico, newcomer, slow, scripts
):
    person = visit(java_script_enabled=scripts, viewport=NARROW).sign_in(newcomer, PASSWORD)
    page = person.open(f"/models/{slow}")
    person.press("Subscribe")
    person.follow("Try it")
    page.get_by_label("Message", exact=True).fill(BAD)
    page.locator("#send").click()
    answer = page.locator(".turn-assistant:not(.turn-live)")
    answer.get_by_text("bold", exact=True).wait_for()
    assert answer.get_by_role("heading", name="A plan").is_visible()
    assert page.locator(".turn img, .turn script, .turn a[href^=javascript]").count() == 0
    assert "Playground" in page.title()
    assert answer.locator("footer").inner_text().count("$") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    with own_api(portico, newcomer) as api:
        rows = requests_of(api, portico)
    assert [(row["model"], row["outcome"], row["key_name"]) for row in rows] == [(slow, "ok", None)]


def test_with_the_keyboard_alone_an_answer_is_stopped_within_a_second_and_billed_for_what_came(
    visit, portico, newcomer, slow
):
    with own_api(portico, newcomer) as api:
        api.post(f"{portico.url}/api/subscriptions", json={"model": slow}, timeout=PATIENCE_S).raise_for_status()
        person = visit().sign_in(newcomer, PASSWORD)
        page = person.open(f"/playground?model={slow}")
        page.get_by_label("Message", exact=True).focus()
        page.keyboard.type("word " * 200)
        page.keyboard.press("Control+Enter")
        page.get_by_text("tokens/s").wait_for()
        page.keyboard.press("Escape")
        page.locator(".turn-assistant").get_by_text("Stopped.").wait_for()
        seen = page.locator(".turn-assistant [data-tail]").inner_text().count("word")
        (row,) = requests_of(api, portico)
    assert row["outcome"] == "cancelled"
    assert seen <= row["completion_tokens"] <= seen + 20  # what it says in a second
    assert float(row["cost"]) > 0
    page.get_by_label("Message", exact=True).fill("and now this")
    page.keyboard.press("Control+Enter")
    page.locator(".turn-assistant:not(.turn-live)").nth(1).get_by_text("and now this").wait_for()


def test_a_spent_budget_leads_to_the_request_for_more(visit, portico, newcomer, slow, admin_api):
    budget = {"limit": "0.000001", "period": "month"}
    path = f"{portico.url}/api/budgets/user/{newcomer}"
    admin_api.put(path, json=budget, timeout=PATIENCE_S).raise_for_status()
    with own_api(portico, newcomer) as api:
        api.post(f"{portico.url}/api/subscriptions", json={"model": slow}, timeout=PATIENCE_S).raise_for_status()
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open(f"/playground?model={slow}")
    page.get_by_label("Message", exact=True).fill("one two three")
    page.locator("#send").click()
    person.sees("Not enough budget left for this request")
    assert page.get_by_label("Message", exact=True).input_value() == "one two three"
    person.follow("Request an increase")
    page.wait_for_url(f"**/budgets/user/{newcomer}")
