"""A team, as its people live it: invited, capped, cut off by the cap, asking for more, and served again."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import openai
import pytest
import requests

from tests.journeys.conftest import PASSWORD, Visitor
from tests.services.portico import Portico
from tests.services.waiting import PATIENCE_S

pytestmark = pytest.mark.browser


@pytest.fixture
def colleague(portico: Portico, admin_api: requests.Session, newcomer: str) -> str:
    """The username of somebody else who has nothing yet; their password is `PASSWORD`."""
    username = f"colleague-of-{newcomer}"
    answer = admin_api.post(
        f"{portico.url}/admin/users", json={"username": username, "password": PASSWORD}, timeout=PATIENCE_S
    )
    assert answer.status_code == 201, answer.text
    return username


def main_of(person: Visitor) -> str:
    return person.page.get_by_role("main").inner_text()


def call(client: openai.OpenAI) -> None:
    words = [{"role": "user", "content": "seven words are said to this model"}]
    client.chat.completions.create(model="echo-1", messages=words, max_tokens=7)  # type: ignore[arg-type]


def call_often(client: openai.OpenAI) -> None:
    for _ in range(60):
        call(client)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_capped_member_is_cut_off_asks_for_more_and_is_served_again(visit, portico, newcomer, colleague, scripts):
    owner = visit(java_script_enabled=scripts).sign_in(newcomer, PASSWORD)
    member = visit(java_script_enabled=scripts).sign_in(colleague, PASSWORD)

    # The owner makes a team, gives it a model, and invites.
    owner.open("/teams")
    owner.follow("Create a team")
    owner.page.get_by_label("Name").fill(f"Team of {newcomer}")
    owner.press("Create team")
    owner.sees("Invite its members")
    owner.page.locator("[name=whom]").fill(colleague)
    owner.press("Invite")
    owner.sees("Invitation sent to")
    team = urlsplit(owner.page.url).path
    owner.follow("Models")
    owner.page.locator("[name=model]").select_option("echo-1")
    owner.press("Ask for it")
    owner.sees("may call echo-1 now")
    assert "Active" in main_of(owner)

    # The member finds the invitation among the notices, and accepts.
    member.open("/notices")
    assert f"invites you to the team Team of {newcomer}" in main_of(member)
    member.open("/teams")
    member.page.get_by_role("button", name="Accept").click()
    member.sees("You are a member")
    assert urlsplit(member.page.url).path == team

    # The owner caps them.
    owner.open(f"{team}?tab=members")
    row = owner.page.get_by_role("row").filter(has_text=colleague)
    row.get_by_label(f"Actions for {colleague}").click()
    row.get_by_role("link", name="Change role and cap").click()
    owner.page.locator("[name=limit]").fill("0.0002")
    owner.press("Save")
    owner.sees("A cap holds on /v1")
    assert "of $0.0002" in owner.page.get_by_role("row").filter(has_text=colleague).inner_text()

    # The member makes a key of the team, and calls until the cap is hit.
    member.follow("Create a key")
    member.page.locator("[name=name]").fill("of the team")
    member.press("Create key")
    key = member.page.locator("#made-key").inner_text().strip()
    client = openai.OpenAI(api_key=key, base_url=f"{portico.url}/v1", max_retries=0)
    with pytest.raises(openai.RateLimitError) as refused:
        call_often(client)
    assert refused.value.code == "insufficient_quota"
    assert colleague in refused.value.message

    # They follow the link of the refusal, see why, and ask for more.
    link = re.search(r"https?://\S+/budgets/\S+?(?=[\s.]*$)", refused.value.message)
    assert link, refused.value.message
    member.open(urlsplit(link[0]).path)
    assert re.search("running low|used up|near", main_of(member), re.IGNORECASE), main_of(member)
    member.page.locator("[name=amount]").fill("0.001")
    member.page.locator("[name=reason]").fill("The second half of the notes.")
    member.press("Request an increase")
    member.sees("Increase requested")

    # The owner is told, grants it, and the call passes.
    owner.open("/notices")
    owner.page.get_by_role("row").filter(has_text="The second half").get_by_role("button", name="Open").click()
    owner.page.wait_for_url("**/budget-requests/**")
    assert "The second half of the notes." in main_of(owner)
    owner.press("Grant")
    owner.sees("gets more")
    call(client)
    member.open("/notices")
    assert f"more for {colleague}" in main_of(member)

    # The owner sees what it cost; then the member leaves, and the key with them.
    used = owner.sees_row(f"/activity?team={team.rpartition('/')[2]}", colleague)
    assert "of the team" in used.inner_text()
    member.open(team)
    member.follow("Leave")
    member.press("Leave")
    member.sees("You are no longer in the team")
    owner.page.wait_for_timeout(1000)
    with pytest.raises(openai.AuthenticationError):
        call(client)
