"""A sign-in, and the way out, with two real identity providers; one of them is certified."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from flask import Flask

from app.oidc import provider as provider_module
from config import Config, load
from tests.house import People
from tests.services.identity_providers import NoProvider, certified_provider, simple_provider

pytestmark = [pytest.mark.services, pytest.mark.slow]

CLIENT, SECRET = "portico", "a secret of the client, long enough for HS256"
CALLBACK, AFTER = "http://localhost/oidc/callback", "http://localhost/sign-in"


@pytest.fixture(scope="module", params=["simple", "certified"])
def at(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Which provider, and its issuer."""
    try:
        which = simple_provider() if request.param == "simple" else certified_provider(CLIENT, SECRET, CALLBACK, AFTER)
        with which as issuer:
            yield request.param, issuer
    except NoProvider as reason:
        pytest.skip(f"no identity provider: {reason}")


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str, at: tuple[str, str]) -> Config:
    provider_module._known.clear()
    return load(
        {
            "CONFIG_STORAGE_DATA_DIR": str(home),
            "CONFIG_DATABASE_URL": database_url,
            "CONFIG_REDIS_URL": redis_url,
            "CONFIG_SERVER_DOORS": "api,public",
            "CONFIG_OIDC_ISSUER": at[1],
            "CONFIG_OIDC_CLIENT_ID": CLIENT,
            "CONFIG_OIDC_CLIENT_SECRET": SECRET,
            "CONFIG_OIDC_TEAM_GROUPS": "{ml: Machine learning}",
        }
    )


def through_simple(browser: requests.Session, url: str) -> str:
    requests.put(urljoin(url, "/users/ada"), json={"preferred_username": "ada", "groups": ["ml"]}, timeout=10)
    return str(browser.post(url, data={"sub": "ada"}, allow_redirects=False, timeout=10).headers["Location"])


def through_certified(browser: requests.Session, url: str) -> str:
    """Through its forms: the name, then the consent, until it leads back."""
    answer = browser.get(url, allow_redirects=False, timeout=10)
    for _ in range(12):
        if answer.is_redirect:
            place = urljoin(answer.url, answer.headers["Location"])
            if place.startswith(CALLBACK):
                return place
            answer = browser.get(place, allow_redirects=False, timeout=10)
            continue
        action = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert action, answer.text
        login = {"prompt": "login", "login": "ada", "password": "x"}
        form = login if 'value="login"' in answer.text else {"prompt": "consent"}
        place = urljoin(answer.url, unescape(action[1]))
        answer = browser.post(place, data=form, allow_redirects=False, timeout=10)
    raise AssertionError("it leads nowhere")


THROUGH: dict[str, Callable[[requests.Session, str], str]] = {"simple": through_simple, "certified": through_certified}


def test_a_person_signs_in_and_out(app: Flask, visitors: People, at: tuple[str, str]) -> None:
    client, browser = app.test_client(), requests.Session()
    browser.trust_env = False
    led = client.get("/oidc/login?next=/api/auth/me")
    assert led.status_code == 302
    back = THROUGH[at[0]](browser, led.headers["Location"])
    path = f"{urlsplit(back).path}?{urlsplit(back).query}"
    answer = client.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/api/auth/me"), answer.text
    me = client.get("/api/auth/me").get_json()
    assert (me["username"], len(me["teams"])) == ("ada", 1)
    assert app.test_client().get(path).status_code == 400  # neither in another browser
    assert client.get(path).status_code == 400  # nor again
    away = client.post("/sign-out", data={"csrf_token": me["csrf_token"]})
    assert away.headers["Location"].startswith(at[1])
    assert browser.get(away.headers["Location"], timeout=10).status_code == 200
    assert client.get("/api/auth/me").status_code == 401
