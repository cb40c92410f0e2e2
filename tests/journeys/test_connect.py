"""The way of a newcomer with a client: subscribe, make a key, copy a block, call, and see the page turn green."""

from __future__ import annotations

import os
import subprocess

import openai
import pytest

from tests.journeys.conftest import PASSWORD, Visitor
from tests.services.portico import Portico
from tests.services.waiting import until

pytestmark = pytest.mark.browser


def subscribed_with_key(person: Visitor, name: str) -> str:
    """The secret of a new key for echo-1, as far as the page that shows it."""
    person.open("/connect")
    person.follow("Browse models")
    person.page.get_by_role("link", name="Echo", exact=True).first.click()
    person.press("Subscribe")
    person.sees("subscribed to echo-1")
    person.open("/connect")
    person.follow("Create a key")
    person.page.locator("[name=name]").fill(name)
    person.press("Create key")
    return person.page.locator("#made-key").inner_text().strip()


def run(block: str, secret: str) -> str:
    """What a shell prints that runs a block as it stands."""
    environment = {"PATH": os.environ["PATH"], "PORTICO_API_KEY": secret}
    done = subprocess.run(["sh", "-c", block], env=environment, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_block_works_as_it_stands_and_the_page_turns_green(visit, newcomer, scripts):
    person = visit(java_script_enabled=scripts).sign_in(newcomer, PASSWORD)
    secret = subscribed_with_key(person, "laptop")
    person.follow("Connect a client")
    assert secret not in person.page.content()
    person.follow("curl")
    person.sees("Waiting for the first call of curl with laptop.")
    block = person.page.locator("#connect-code").inner_text()
    assert "Hello!" in run(block, secret)
    if scripts:
        person.sees("curl is connected")  # by itself
        person.page.get_by_role("link", name="See the request").wait_for()
    else:
        link = person.page.get_by_role("link", name="See the request")
        until(lambda: person.page.reload() and link.count(), person.page.content)
    person.follow("See the request")
    person.sees("Request to echo-1")


def test_a_refused_call_is_explained_and_the_next_one_turns_the_page_green(visit, portico: Portico, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    secret = subscribed_with_key(person, "script")
    person.follow("Connect a client")
    person.follow("OpenAI SDK")
    person.sees("Waiting for the first call of OpenAI SDK with script.")
    client = openai.OpenAI(api_key=secret, base_url=f"{portico.url}/v1", max_retries=0)
    hello = [{"role": "user", "content": "Hello!"}]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="echo-restricted", messages=hello)
    person.sees("A call with script failed")
    person.sees("'echo-restricted' does not exist or this key may not use it")
    client.chat.completions.create(model="echo-1", messages=hello)
    person.sees("OpenAI SDK is connected")


def test_what_is_picked_is_in_the_address_and_the_rest_of_the_page_stays(visit, newcomer):
    person = visit().sign_in(newcomer, PASSWORD)
    subscribed_with_key(person, "laptop")
    person.follow("Connect a client")
    person.follow("OpenCode")
    person.page.wait_for_url("**client=opencode**")
    assert '"portico/echo-1"' in person.page.locator("#connect-code").inner_text()
    person.page.go_back()
    person.sees("1. Set up Claude Code")
