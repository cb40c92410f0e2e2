"""The life of a key, as its owner leads it beside an application that uses it: paused, rotated, its old text ended."""

from __future__ import annotations

from urllib.parse import urlsplit

import openai
import pytest

from tests.journeys.conftest import PASSWORD, Visitor
from tests.services.waiting import within

pytestmark = pytest.mark.browser


def works(client: openai.OpenAI) -> bool:
    try:
        client.models.list()
    except openai.AuthenticationError as error:
        return error.code != "invalid_api_key"
    return True


def act(person: Visitor, opener: str, verb: str) -> None:
    """Opens a question, in a dialog or on a page of its own, and answers yes."""
    person.follow(opener)
    person.page.get_by_role("button", name=verb, exact=True).locator("visible=true").click()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_key_is_paused_and_rotated_while_its_application_goes_on(visit, portico, newcomer, scripts):
    person = visit(java_script_enabled=scripts).sign_in(newcomer, PASSWORD)
    person.open("/models/echo-1")
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    person.open("/keys/new?model=echo-1")
    person.page.locator("[name=name]").fill("desk")
    person.page.locator("[name=note]").fill("beside the window")
    person.press("Create key")
    first = person.page.locator("#made-key").inner_text().strip()
    old = openai.OpenAI(api_key=first, base_url=f"{portico.url}/v1", max_retries=0)
    assert works(old)
    person.follow("I have stored it")

    act(person, "Pause", "Pause key")
    person.page.get_by_text("This key is paused").wait_for()
    within(1, lambda: not works(old))
    act(person, "Resume", "Resume key")
    person.page.get_by_text("works again").wait_for()
    within(1, lambda: works(old))

    person.follow("Rotate")
    person.page.get_by_label("After an hour").check()
    person.press("Rotate key")
    second = person.page.locator("#made-key").inner_text().strip()
    assert second != first
    new = openai.OpenAI(api_key=second, base_url=f"{portico.url}/v1", max_retries=0)
    for client in (old, new):
        client.chat.completions.create(model="echo-1", messages=[{"role": "user", "content": "hello"}])
    person.follow("I have stored it")
    path = urlsplit(person.page.url).path
    assert f"…{first[-4:]}" in person.sees_row(path, "Still used").inner_text()
    person.page.get_by_role("link", name="End").click()
    person.press("Revoke it now")
    person.page.get_by_text("is now refused").wait_for()
    within(1, lambda: not works(old))
    assert works(new)
    history = person.page.locator("#history").inner_text()
    titles = "Old secret revoked", "Key rotated", "Key resumed", "Key paused", "Key created"
    assert [title for title in titles if title not in history] == []


def test_a_field_says_what_is_wrong_when_it_is_left_and_takes_it_back(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    page = person.open("/password")
    field, other = page.locator("[name=current_password]"), page.locator("[name=new_password]")
    field.focus()
    page.keyboard.press("Tab")
    note = page.locator("#current_password-browser")
    note.wait_for()
    assert note.inner_text().replace("Error:", "").strip() == field.evaluate("field => field.validationMessage")
    assert field.get_attribute("aria-invalid") == "true"
    assert field.get_attribute("aria-describedby") == "current_password-browser"
    assert other.get_attribute("aria-invalid") is None
    field.press_sequentially("x")
    note.wait_for(state="detached")
    assert field.get_attribute("aria-invalid") is None
    assert field.get_attribute("aria-describedby") is None
    # What is pressed meanwhile is not moved away under the hand.
    field.fill("")
    person.press("Change password")
    page.get_by_text("Please check these fields").wait_for()


def test_the_form_of_a_key_sums_up_what_will_be_made(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    person.open("/models/echo-1")
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    page = person.open("/keys/new?model=echo-1")
    page.locator("[name=name]").fill("desk")
    page.locator("[name=lifetime]").select_option("90")
    summary = page.locator("#summary")
    assert "Budget" not in summary.inner_text()
    page.locator("[name=budget]").fill("25")
    page.locator("[name=thresholds]").fill("80")
    page.keyboard.press("Tab")
    told = dict(zip(*(summary.locator(cell).all_inner_texts() for cell in ("dt", "dd")), strict=True))
    assert told == {
        "Name": "desk",
        "Models": "Only the models ticked below",
        "Which models": "echo-1",
        "Expires": "In 90 days",
        "Budget": "25 USD",
        "Budget period": "A month",
        "Time zone of the period": "UTC",
        "Alert at": "80",
    }


def test_back_and_a_reload_show_a_new_key_no_more_and_leaving_asks_until_it_is_stored(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    person.open("/models/echo-1")
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    person.open("/keys/new?model=echo-1")
    person.page.locator("[name=name]").fill("desk")
    person.press("Create key")
    secret = person.page.locator("#made-key").inner_text().strip()
    asked = []
    person.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    person.page.get_by_role("link", name="All keys").click()
    person.page.wait_for_timeout(300)
    assert asked == ["beforeunload"]
    assert person.page.locator("#made-key").inner_text().strip() == secret
    person.follow("I have stored it")
    person.page.go_back()
    person.page.get_by_text("This has already been shown").wait_for()
    person.page.reload()
    assert secret not in person.page.content()
    assert asked == ["beforeunload"]
