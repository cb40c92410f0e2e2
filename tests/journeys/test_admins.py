"""What admins do in a day, and what those who may only read can't."""

from __future__ import annotations

import pytest
import requests

from tests.journeys.conftest import PASSWORD
from tests.services.waiting import PATIENCE_S, within

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def made(api: requests.Session, url: str, **fields: object) -> None:
    answer = api.post(url, json=fields, timeout=PATIENCE_S)
    assert answer.ok, answer.text


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_somebody_invited_by_link_asks_and_is_approved_with_others_at_once(
    visit, portico, admin_api, newcomer, scripts
):
    admin = visit(java_script_enabled=scripts).sign_in(portico.admin_username, portico.admin_password)
    admin.open("/admin/invitations/new")
    admin.page.get_by_role("main").get_by_role("button", name="Create invitation").click()
    link = admin.page.locator("#invitation-link").inner_text().strip()

    guest, username = visit(java_script_enabled=scripts), f"guest-{newcomer.rpartition('-')[2]}"
    guest.page.goto(link)
    guest.page.locator("[name=username]").fill(username)
    for field in ("password", "again"):
        guest.page.locator(f"[name={field}]").fill(PASSWORD)
    guest.page.get_by_role("button", name="Create my account").click()
    guest.page.wait_for_url(lambda address: "/invitation/" not in address)

    person = visit().sign_in(newcomer, PASSWORD)
    for visitor in (guest, person):
        visitor.open("/models/echo-restricted?tab=access")
        visitor.page.locator("[name=justification]").fill("A trial")
        visitor.press("Request access")
        visitor.sees("Pending")

    admin.open("/admin/approvals")
    for name in (username, newcomer):
        row = admin.page.get_by_role("row").filter(has_text=name).first
        row.get_by_role("checkbox").check()
    admin.press("Review selected")
    admin.page.locator("[name=reason]").fill("For a month.")
    admin.press("Approve")
    admin.page.get_by_role("heading", name="2 of 2 approved").wait_for()
    told = admin.page.get_by_role("main").inner_text()
    assert username in told and newcomer in told

    for visitor in (guest, person):
        visitor.open("/models/echo-restricted?tab=access")
        visitor.sees("You have access")
        visitor.open("/notices")
        assert "echo-restricted" in visitor.page.get_by_role("main").inner_text()


def test_who_is_deactivated_is_out_within_a_second(visit, portico, admin_api, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    person.open("/models/echo-1?tab=access")
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    token = requests.post(
        f"{portico.url}/token", {"username": newcomer, "password": PASSWORD}, timeout=PATIENCE_S
    ).json()
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "Hello"}]}
    call = f"{portico.url}/v1/chat/completions"
    assert requests.post(call, json=body, headers=bearer, timeout=PATIENCE_S).status_code == 200

    admin = visit().sign_in(portico.admin_username, portico.admin_password)
    admin.open(f"/admin/people/{newcomer}/deactivation")
    admin.page.get_by_role("main").get_by_role("button", name="Deactivate").first.click()
    admin.page.wait_for_url(lambda address: "/deactivation" not in address)
    within(1, lambda: requests.post(call, json=body, headers=bearer, timeout=PATIENCE_S).status_code == 401)
    person.open("/home")
    assert "/sign-in" in person.page.url


def test_an_admin_who_may_only_read_sees_everything_and_changes_nothing(visit, portico, admin_api, newcomer):
    reader = f"reader-{newcomer}"
    made(admin_api, f"{portico.url}/admin/users", username=reader, password=PASSWORD, role="admin-readonly")
    auditor = visit().sign_in(reader, PASSWORD)
    for path in ("/admin/providers", "/admin/rules", "/admin/people", "/admin/announcement"):
        page = auditor.open(path)
        main = page.get_by_role("main")
        assert main.get_by_role("heading", level=1).count() == 1
        disabled = main.locator("button[disabled], [aria-disabled=true], fieldset[disabled] button")
        assert disabled.count() >= 1, f"{path} shows nothing that is locked"
        assert (
            main.locator("form[method=post] button:enabled:not([aria-disabled=true])").filter(visible=True).count() == 0
        ), path
    status = auditor.page.evaluate(
        """async () => {
            const token = document.querySelector('[name=csrf_token]')?.value ?? '';
            const body = new URLSearchParams({csrf_token: token, text: 'x'});
            return (await fetch('/admin/announcement', {method: 'POST', body})).status;
        }"""
    )
    assert status == 403
