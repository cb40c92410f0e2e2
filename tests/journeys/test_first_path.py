"""The first whole path, as people walk it: ask for a model, be approved, make a key, stream, see the exact cost."""

from __future__ import annotations

import time

import openai
import pytest

from app.metering import money
from tests.journeys.conftest import PASSWORD

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_newcomer_gets_a_restricted_model_streams_with_it_and_sees_what_it_cost(visit, portico, newcomer, scripts):
    person = visit(java_script_enabled=scripts).sign_in(newcomer, PASSWORD)
    person.open("/models")
    person.page.get_by_role("link", name="Echo, restricted").click()
    person.follow("Request access")
    person.page.get_by_label("What do you need it for").or_(person.page.locator("[name=justification]")).first.fill(
        "Summaries of meeting notes"
    )
    person.press("Request access")
    person.sees("Pending")

    admin = visit(java_script_enabled=scripts).sign_in(portico.admin_username, portico.admin_password)
    admin.open("/home")
    assert int(admin.page.get_by_role("link", name="Approvals").inner_text().split()[-1]) >= 1
    admin.page.get_by_role("link", name="Approvals").click()
    row = admin.page.get_by_role("row").filter(has_text=newcomer)
    assert "Summaries of meeting notes" in row.inner_text()
    row.get_by_role("link", name="Review").click()
    admin.page.get_by_role("button", name="Approve").click()
    admin.page.get_by_role("row").filter(has_text=newcomer).wait_for(state="detached")

    person.open("/subscriptions")
    assert "Active" in person.page.get_by_role("row").filter(has_text="echo-restricted").inner_text()
    person.open("/keys/new")
    person.page.locator("[name=name]").fill("my notebook")
    person.page.locator("[name=budget]").fill("0.50")
    person.press("Create key")
    key = person.page.locator("#made-key").inner_text().strip()
    assert key.startswith("sk-")

    client = openai.OpenAI(api_key=key, base_url=f"{portico.url}/v1", max_retries=0)
    stream = client.chat.completions.create(
        model="echo-restricted",
        messages=[{"role": "user", "content": "seven words are said to this model"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        "seven words are said to this model"
    )
    used = chunks[-1].usage
    # 2.50 a million tokens in, 10 out.
    cost = money.half_up(used.prompt_tokens * 2_500_000_000 + used.completion_tokens * 10_000_000_000, money.MTOK)
    assert (used.prompt_tokens, used.completion_tokens, money.text(cost)) == (7, 7, "0.0000875")

    row = person.sees_row("/activity", "my notebook")
    assert "echo-restricted" in row.inner_text()
    row.get_by_role("link").first.click()
    person.sees("0.0000875")
    told = client.get("/key", cast_to=dict[str, object])
    assert told["budget"]["spent"] == "0.0000875"  # type: ignore[index]


def test_a_denied_request_shows_its_reason_and_may_be_repeated(visit, portico, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    person.open("/models/echo-restricted?tab=access")
    person.page.locator("[name=justification]").fill("Curiosity")
    person.press("Request access")
    admin = visit().sign_in(portico.admin_username, portico.admin_password)
    admin.open("/admin/approvals")
    row = admin.page.get_by_role("row").filter(has_text=newcomer)
    row.get_by_role("link", name="Review").click()
    admin.page.get_by_role("button", name="Deny").click()
    admin.page.get_by_text("reason", exact=False).first.wait_for()  # it is asked for
    admin.page.locator("[name=reason]").fill("Please say what for.")
    admin.page.get_by_role("button", name="Deny").click()
    admin.page.get_by_role("row").filter(has_text=newcomer).wait_for(state="detached")
    person.open("/models/echo-restricted?tab=access")
    person.sees("Please say what for.")
    person.page.locator("[name=justification]").fill("Minutes of the council")
    person.press("Request again")
    person.sees("Pending")


def test_a_revoked_key_stops_within_a_second(visit, portico, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    person.open("/models/echo-1")
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    person.open("/keys/new")
    person.page.locator("[name=name]").fill("short-lived")
    person.press("Create key")
    key = person.page.locator("#made-key").inner_text().strip()
    client = openai.OpenAI(api_key=key, base_url=f"{portico.url}/v1", max_retries=0)
    assert [model.id for model in client.models.list()] == ["echo-1"]
    person.follow("I have stored it")
    assert key not in person.page.content()
    person.page.get_by_role("main").get_by_role("link", name="Revoke").or_(
        person.page.get_by_role("main").get_by_role("button", name="Revoke")
    ).first.click()
    person.page.get_by_label("short-lived").or_(person.page.locator("[name=typed]")).first.fill("short-lived")
    person.page.get_by_role("button", name="Revoke").last.click()
    person.page.get_by_text("Revoked").first.wait_for()
    time.sleep(1)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
