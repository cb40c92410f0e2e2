"""The menu: its groups open and close by pointer and by keyboard, with and without scripts, and it folds away when wide."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser


def admin_at(visit, portico, path, **options):
    admin = visit(**options).sign_in(portico.admin_username, portico.admin_password)
    return admin.open(path)


def entry(page, name):
    return page.locator("#sidebar").get_by_role("link", name=name, exact=True)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
def test_a_group_opens_by_keyboard_and_stays_open_where_scripts_run(visit, portico, scripts):
    page = admin_at(visit, portico, "/admin/jobs", java_script_enabled=scripts, viewport={"width": 1360, "height": 600})
    assert entry(page, "Jobs").get_attribute("aria-current") == "page"
    assert not entry(page, "Chargeback").is_visible()
    money = page.locator("#sidebar summary", has_text="Money")
    money.focus()
    money.press("Enter")
    assert entry(page, "Chargeback").is_visible()
    page.goto(f"{portico.url}/home")
    assert entry(page, "Chargeback").is_visible() is scripts
    assert not entry(page, "Jobs").is_visible()


def test_the_current_entry_is_within_the_window(visit, portico):
    for width in (1360, 390):
        page = admin_at(visit, portico, "/admin/announcement", viewport={"width": width, "height": 600})
        if width == 390:
            page.locator("[data-sidebar-toggle]").click()
        assert entry(page, "Announcement").evaluate("link => link.getBoundingClientRect().bottom <= innerHeight")


def test_a_wide_menu_folds_away_and_stays_so_until_it_is_called_back(visit, portico):
    page = admin_at(visit, portico, "/admin/jobs", viewport={"width": 1360, "height": 800})
    toggle = page.get_by_role("button", name="Main menu")
    for unfolded in (False, True):
        toggle.focus()
        toggle.press("Enter")
        page.reload()
        assert page.locator("#sidebar").is_visible() is unfolded
        assert toggle.get_attribute("aria-expanded") == str(unfolded).lower()
        assert toggle.evaluate(
            "b => b.contains(document.elementFromPoint(...(r => [r.x + 9, r.y + 9])(b.getBoundingClientRect())))"
        )
