"""People in front of a real Portico in a real Chromium."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from tests.services.portico import Portico
from tests.services.waiting import PATIENCE_S, until

PASSWORD = "a long enough password"
_numbers = itertools.count(1)


class Visitor:
    """Somebody at a browser of their own. What the browser complains about fails the test at its end."""

    def __init__(self, context: BrowserContext, portico: Portico) -> None:
        self.portico = portico
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:
            self.complaints.append(text)

    def open(self, path: str) -> Page:
        self.page.goto(self.portico.url + path)
        return self.page

    def sign_in(self, username: str, password: str) -> Visitor:
        self.open("/sign-in")
        self.page.get_by_label("Username").fill(username)
        self.page.locator("[name=password]").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda address: "/sign-in" not in address)
        return self

    def press(self, name: str) -> None:
        self.page.get_by_role("main").get_by_role("button", name=name, exact=True).click()

    def sees(self, words: str) -> None:
        """Waits until the page says it: what was pressed may still be under way."""
        self.page.get_by_text(words).locator("visible=true").first.wait_for()

    def sees_row(self, path: str, words: str) -> Locator:
        """The row of the list at `path`, once it is there: the drainer posts within a second or two."""
        row = self.page.get_by_role("row").filter(has_text=words)
        until(lambda: self.open(path) and row.count(), lambda: f"{path} tells nothing of {words}")
        return row.first

    def follow(self, name: str) -> None:
        self.page.get_by_role("main").get_by_role("link", name=name, exact=True).first.click()


@pytest.fixture
def visit(browser: Browser, portico: Portico) -> Iterator[Callable[..., Visitor]]:
    """`visit()` is a new visitor with a clean browser; its options are those of a browser context."""
    made: list[tuple[BrowserContext, Visitor]] = []

    def visitor(**options: object) -> Visitor:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_S * 1000)
        made.append((context, Visitor(context, portico)))
        return made[-1][1]

    yield visitor
    complaints = [complaint for _, visitor in made for complaint in visitor.complaints]
    for context, _ in made:
        context.close()
    assert complaints == []


@pytest.fixture
def admin_api(portico: Portico) -> Iterator[requests.Session]:
    """The management API in the admin's name; paths are complete addresses."""
    with requests.Session() as session:
        answer = session.post(
            f"{portico.url}/token",
            {"username": portico.admin_username, "password": portico.admin_password},
            timeout=PATIENCE_S,
        )
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield session


@pytest.fixture
def newcomer(portico: Portico, admin_api: requests.Session) -> str:
    """The username of a person who has nothing yet; their password is `PASSWORD`."""
    username = f"newcomer-{next(_numbers)}"
    answer = admin_api.post(
        f"{portico.url}/admin/users", json={"username": username, "password": PASSWORD}, timeout=PATIENCE_S
    )
    assert answer.status_code == 201, answer.text
    return username
