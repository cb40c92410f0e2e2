"""What holds for every page there is, in a real browser: it is light, complains of nothing, fits narrow screens, and axe
finds nothing in it, in both themes, wide and narrow.

The pages are those that `tools/screenshots.py` photographs, with the same content: a page belongs into that list. Each is
loaded once, and then changed: a load costs more than a look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import requests
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page

from tests.services.portico import ADMIN_PASSWORD, Portico
from tests.services.waiting import PATIENCE_S
from tools.screenshots import PERSON, SETTINGS, WIDE, Seed, pages, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

FIRST_LOAD, LATER_LOAD = 250_000, 30 * 1024  # bytes over the wire
NARROWEST = {"width": 360, "height": 780}
# A page that is changed to another theme or width is for a while between the two, unless nothing in it moves.
STILL = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("*, ::before, ::after { transition: none !important; animation: none !important; }");
  document.adoptedStyleSheets.push(sheet);
}"""
WHO = {"nobody": None, "person": PERSON, "admin": ("admin", ADMIN_PASSWORD)}
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}  # all else is the same in both themes

WIDTHS = (360, 390, 1024, 1280, 1366, 1440)
TOO_WIDE = """() => {
  const main = document.getElementById("main");
  const box = part => part.getBoundingClientRect();
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page");
  if (main.scrollWidth > main.clientWidth) found.push("its main part");
  for (const table of main.querySelectorAll("table.data-table")) {
    const place = table.closest(".table-room")?.parentElement ?? table.parentElement;
    if (box(table).right > box(place).right + 1) found.push(`the table ${table.caption.textContent}`);
    const words = head => [...head.querySelectorAll(".pf-v6-c-table__text, .icon")].map(box);
    const heads = [...table.querySelectorAll("thead th")].filter(head => box(head).width > 1);
    for (const [at, head] of heads.entries())
      for (const next of heads.slice(at + 1, at + 2))
        if (Math.max(...words(head).map(one => one.right)) > Math.min(box(next).right, ...words(next).map(one => one.left)))
          found.push(`the head ${head.textContent.trim()}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def lived_in() -> Iterator[tuple[Portico, dict[str, str]]]:
    """A Portico that looks as if people had used it, and the addresses that bear ids."""
    portico = Portico(SETTINGS)
    try:
        portico.start()
        yield portico, Seed(portico).run()
    finally:
        portico.close()


class Visit:
    """A browser of each of the three who look at pages, with what it complained of and what it was sent."""

    def __init__(self, browser: Browser, portico: Portico, **options: Any) -> None:
        self.portico = portico
        self.contexts: dict[str, BrowserContext] = {}
        self.open: dict[str, Page] = {}
        self.complaints: list[str] = []
        self.sent: dict[str, list[int]] = {}
        for who, credentials in WHO.items():
            self.contexts[who] = browser.new_context(reduced_motion="reduce", **options)
            self.contexts[who].set_default_timeout(PATIENCE_S * 1000)
            page = self.open[who] = self.contexts[who].new_page()
            if credentials is not None:
                sign_in(page, portico.url, *credentials)
            page.on("console", self._heard)
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            self.sent[who] = transferred(page)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(f"{message.location.get('url')}: {message.text}")

    def go(self, who: str, path: str) -> Page:
        page = self.open[who]
        self.sent[who].clear()
        page.goto(self.portico.url + path)
        return page

    def close(self) -> None:
        for context in self.contexts.values():
            context.close()


def violations(page: Page, **more: Any) -> list[str]:
    """What axe, which the page has loaded, finds on it as it is now."""
    options = {"resultTypes": ["violations"], **more}
    faults = page.evaluate("async options => (await axe.run(document, options)).violations", options)
    return [f"{fault['id']}: {node['html'][:160]}" for fault in faults for node in fault["nodes"][:3]]


def transferred(page: Page) -> list[int]:
    """The bytes of every answer to `page` from now on, as they came over the wire."""
    found: list[int] = []
    wire = page.context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.on("Network.loadingFinished", lambda event: found.append(int(event["encodedDataLength"])))
    return found


def test_every_page_is_light_fits_complains_of_nothing_and_axe_finds_nothing(
    browser: Browser, lived_in: tuple[Portico, dict[str, str]]
) -> None:
    portico, seeded = lived_in
    visit = Visit(browser, portico)
    for who, path in (("person", "/usage"), ("admin", "/admin/usage")):  # what later pages need is cached then
        visit.go(who, path).wait_for_load_state("networkidle")
    found = []
    for name, who, path in pages(seeded):
        page = visit.open[who]
        page.set_viewport_size(WIDE)
        visit.go(who, path)
        page.evaluate(STILL)
        page.evaluate(AXE_SCRIPT)
        found += [f"{name}, wide, {fault}" for fault in misfits(page)]
        page.wait_for_load_state("networkidle")  # what came meanwhile counts too
        loaded = sum(visit.sent[who])
        if who != "nobody" and not 500 < loaded <= LATER_LOAD:
            found.append(f"{name} loads {loaded} bytes")
        page.set_viewport_size(NARROWEST)
        found += [f"{name}, narrow, {fault}" for fault in misfits(page)]
    visit.close()
    assert not found, "\n".join(found)
    assert visit.complaints == []


def misfits(page: Page) -> Iterator[str]:
    """What does not fit at this width, and what axe finds in both themes; the page is light again then."""
    width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    if width > room:
        yield f"it is {width} px wide"
    yield from violations(page)
    page.emulate_media(color_scheme="dark")
    page.locator("html.pf-v6-theme-dark").wait_for(state="attached")
    yield from (f"dark, {fault}" for fault in violations(page, runOnly=COLOURS))
    page.emulate_media(color_scheme="light")
    page.locator("html:not(.pf-v6-theme-dark)").wait_for(state="attached")


def test_no_list_is_wider_than_its_place_whatever_the_names(
    browser: Browser, lived_in: tuple[Portico, dict[str, str]]
) -> None:
    """Columns leave in their order; those that stay are wholly seen."""
    portico, seeded = lived_in
    give_long_names(portico)
    visit = Visit(browser, portico)
    lists = {
        (who, path)
        for _, who, path in pages(seeded)
        if who != "nobody" and path.strip("/").count("/") < 2 and ("?" not in path or "view=" in path)
    }
    found = []
    for who, path in sorted(lists):
        page = visit.go(who, path)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += [f"{path} at {width}: {words}" for words in page.evaluate(TOO_WIDE)]
    visit.close()
    assert not found, "\n".join(found)


def give_long_names(portico: Portico) -> None:
    """A key, a team and a model with the longest names in use, of the person whose lists are looked at."""
    with requests.Session() as admin, requests.Session() as person:
        for session, (username, password) in ((admin, ("admin", ADMIN_PASSWORD)), (person, PERSON)):
            token = session.post(
                f"{portico.url}/token", {"username": username, "password": password}, timeout=PATIENCE_S
            )
            session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        long = "measurements-of-the-nightly-batch-of-the-" + "w" * 20
        for session, path, body in (
            (
                admin,
                "/admin/users",
                {"username": f"a.{long}"[:64], "password": PERSON[1], "email": f"{long}@example.org"},
            ),
            (person, "/api/teams", {"name": f"Team of {long}"[:64]}),
            (person, "/api/keys", {"name": f"Key of {long}"[:64], "note": f"Made for {long}"}),
            (
                admin,
                "/api/models",
                {"name": f"lab/{long}"[:64], "display_name": f"Model of {long}"[:64], "capabilities": ["chat"]},
            ),
        ):
            answer = session.post(portico.url + path, json=body, timeout=PATIENCE_S)
            assert answer.ok, answer.text


def test_first_pages_are_light(browser: Browser, lived_in: tuple[Portico, dict[str, str]]) -> None:
    portico, _ = lived_in
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
    visit.close()
    assert not heavy, "\n".join(heavy)


def test_every_page_of_the_menu_is_among_the_pages(lived_in: tuple[Portico, dict[str, str]]) -> None:
    from app.pages.menu import ADMIN, USER

    listed = {path.partition("?")[0] for _, _, path in pages(lived_in[1])}
    assert [entry.href for entry in chain(USER, *ADMIN.values()) if entry.href not in listed] == [], (
        "add the page to `pages` in tools/screenshots.py"
    )
