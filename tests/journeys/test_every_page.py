"""What holds for every page there is, in a real browser: it is light, complains of nothing, fits narrow screens, and axe
finds nothing in it, in both themes, wide and narrow.

The pages are those that `tools/screenshots.py` photographs, with the same content: a page belongs into that list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.services.portico import ADMIN_PASSWORD, Portico
from tests.services.waiting import PATIENCE_S
from tools.screenshots import NARROW, PERSON, WIDE, Seed, pages, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("every page"), pytest.mark.timeout(600)]

FIRST_LOAD, LATER_LOAD = 250_000, 30_000  # bytes over the wire
NARROWEST = {"width": 360, "height": 780}
WHO = {"nobody": None, "person": PERSON, "admin": ("admin", ADMIN_PASSWORD)}
COLOURS = ["color-contrast", "link-in-text-block"]
LOOKS = [(size, scheme) for size in (WIDE, NARROW) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def lived_in() -> Iterator[tuple[Portico, dict[str, str]]]:
    """A Portico that looks as if people had used it, and the addresses that bear ids."""
    portico = Portico({})
    try:
        portico.start()
        yield portico, Seed(portico).run()
    finally:
        portico.close()


class Visit:
    """A browser of each of the three who look at pages, with what it complained of."""

    def __init__(self, browser: Browser, portico: Portico, **options: Any) -> None:
        self.portico = portico
        self.contexts: dict[str, BrowserContext] = {}
        self.open: dict[str, Page] = {}
        self.complaints: list[str] = []
        for who, credentials in WHO.items():
            self.contexts[who] = browser.new_context(**options)
            self.contexts[who].set_default_timeout(PATIENCE_S * 1000)
            page = self.open[who] = self.contexts[who].new_page()
            if credentials is not None:
                sign_in(page, portico.url, *credentials)
            page.on("console", self._heard)
            page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(f"{message.location.get('url')}: {message.text}")

    def go(self, who: str, path: str, *, until_idle: bool = False) -> Page:
        """The page, loaded; `until_idle` also waits half a second for what may still come."""
        page = self.open[who]
        page.goto(self.portico.url + path, wait_until="networkidle" if until_idle else "load")
        return page

    def close(self) -> None:
        for context in self.contexts.values():
            context.close()


@pytest.mark.parametrize(
    ("size", "scheme"), LOOKS, ids=lambda value: value if isinstance(value, str) else str(value["width"])
)
def test_axe_finds_nothing(browser: Browser, lived_in: tuple[Portico, dict[str, str]], size: Any, scheme: Any) -> None:
    portico, seeded = lived_in
    visit = Visit(browser, portico, viewport=size, color_scheme=scheme, reduced_motion="reduce")
    rules: dict[str, Any] = {"resultTypes": ["violations"]}
    if scheme == "dark":
        rules["runOnly"] = {"type": "rule", "values": COLOURS}  # all else is the same in both themes
    found = []
    for name, who, path in pages(seeded):
        result = Axe().run(visit.go(who, path), options=rules)
        found += [
            f"{name}: {fault['id']}: {node['html'][:160]}"
            for fault in result.response["violations"]
            for node in fault["nodes"][:3]
        ]
    visit.close()
    assert found == []
    assert visit.complaints == []


def test_no_page_is_wider_than_the_narrowest_screen(browser: Browser, lived_in: tuple[Portico, dict[str, str]]) -> None:
    portico, seeded = lived_in
    visit = Visit(browser, portico, viewport=NARROWEST)
    wide = []
    for name, who, path in pages(seeded):
        page = visit.go(who, path)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > NARROWEST["width"]:
            wide.append(f"{name}: {width} px")
    visit.close()
    assert wide == []
    assert visit.complaints == []


def transferred(page: Page) -> list[int]:
    """The bytes of every answer to `page` from now on, as they came over the wire."""
    found: list[int] = []
    wire = page.context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.on("Network.loadingFinished", lambda event: found.append(int(event["encodedDataLength"])))
    return found


def test_pages_are_light(browser: Browser, lived_in: tuple[Portico, dict[str, str]]) -> None:
    portico, seeded = lived_in
    heavy = []
    visit = Visit(browser, portico)
    for who, path in (("nobody", "/sign-in"), ("person", "/home"), ("person", "/usage"), ("admin", "/admin/usage")):
        fresh = browser.new_context()  # nothing cached
        fresh.add_cookies(visit.contexts[who].cookies())  # type: ignore[arg-type]
        page = fresh.new_page()
        loaded = transferred(page)
        page.goto(portico.url + path)
        page.wait_for_load_state("networkidle")
        if not 10_000 < sum(loaded) <= FIRST_LOAD:
            heavy.append(f"{path} first: {sum(loaded)} bytes")
        fresh.close()
    visit.go("person", "/usage", until_idle=True)
    visit.go("admin", "/admin/usage", until_idle=True)
    for name, who, path in pages(seeded):
        if who == "nobody":
            continue
        loaded = transferred(visit.open[who])
        visit.go(who, path, until_idle=True)
        if not 500 < sum(loaded) <= LATER_LOAD:
            heavy.append(f"{name} later: {sum(loaded)} bytes")
    visit.close()
    assert not heavy, "\n".join(heavy)


def test_every_page_of_the_menu_is_among_the_pages(lived_in: tuple[Portico, dict[str, str]]) -> None:
    from app.pages.menu import ADMIN, USER

    listed = {path.partition("?")[0] for _, _, path in pages(lived_in[1])}
    assert [entry.href for entry in (*USER, *ADMIN) if entry.href not in listed] == [], (
        "add the page to `pages` in tools/screenshots.py"
    )
