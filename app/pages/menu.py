"""What surrounds every page: the menu, the signed-in person, the brand and the announcement, for layouts/page.html.

It knows the doors only by their paths, so it offers exactly the pages that this process serves.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from flask import Flask, current_app, request, url_for
from flask_login import current_user

from app import current
from app.domain.announcements import Announcement
from app.domain.person import Person
from app.pages.badges import badges
from app.web import policies
from app.web.links import is_served
from app.workflows.status import version

INSTALLED = "portico_menu"


class Entry(NamedTuple):
    label: str
    href: str
    icon: str
    key: str | None = None  # keyboard shortcut: `g`, then this letter
    also: str | None = None  # pages below this path belong to the entry too


class Page(NamedTuple):
    """A page that the menus lead to, and the title of its part of the menu."""

    label: str
    href: str
    group: str


USER = (
    Entry("Home", "/home", "house", "h"),
    Entry("Models", "/models", "boxes", "m"),
    Entry("Playground", "/playground", "message-square", "p"),
    Entry("Prompts", "/prompts", "file-text"),
    Entry("Subscriptions", "/subscriptions", "list-checks", "s"),
    Entry("API keys", "/keys", "key-round", "k"),
    Entry("Connect", "/connect", "plug", "c"),
    Entry("Budgets", "/budgets", "wallet", "b", also="/budget-requests"),
    Entry("Teams", "/teams", "users", "t"),
    Entry("Usage", "/usage", "chart-column", "u"),
    Entry("Activity", "/activity", "scroll-text"),
    Entry("API reference", "/reference", "code"),
)
PASSWORD = "/password"
OWN = (  # behind the person's name
    Entry("Account", "/account", "user"),
    Entry("Change password", PASSWORD, "lock"),
)
APPROVALS, STATUS = "/admin/approvals", "/admin/status"
PUBLIC_STATUS = "/status"
SEARCH = "/search"
NOTICES, REFERENCE = "/notices", "/reference"
DISMISSED = "portico_dismissed"  # the cookie with the announcement that this browser dismissed
OPENED = "portico_menu"  # the cookie with the groups that this browser opened, separated by dots
# No label begins another one, so that a spoken or typed name means one page.
ADMIN: dict[str, tuple[Entry, ...]] = {
    "Access": (
        Entry("Approvals", APPROVALS, "shield-check", "a", also="/admin/budget-requests"),
        Entry("Approval rules", "/admin/rules", "zap"),
        Entry("People", "/admin/people", "users", also="/admin/invitations"),
        Entry("All teams", "/admin/teams", "folder"),
        Entry("All API keys", "/admin/keys", "key-round"),
        Entry("Single sign-on", "/admin/single-sign-on", "lock"),
    ),
    "Catalogue": (
        Entry("Providers", "/admin/providers", "plug"),
        Entry("Model catalogue", "/admin/models", "layers"),
        Entry("Configurations", "/admin/configs", "list-checks"),
    ),
    "Money": (
        Entry("Organisation usage", "/admin/usage", "activity"),
        Entry("All budgets", "/admin/budgets", "wallet", also="/admin/credits"),
        Entry("Chargeback", "/admin/chargeback", "coins"),
        Entry("Unpriced usage", "/admin/unpriced", "tag"),
    ),
    "Operations": (
        Entry("Status", STATUS, "heart-pulse"),
        Entry("Organisation activity", "/admin/activity", "receipt"),
        Entry("Audit log", "/admin/audit", "history"),
        Entry("Encryption key", "/admin/encryption", "lock"),
        Entry("Logs", "/admin/logs", "terminal"),
        Entry("Jobs", "/admin/jobs", "clock"),
        Entry("Failed usage events", "/admin/dead-letters", "inbox"),
        Entry("E-mail & webhooks", "/admin/deliveries", "send"),
        Entry("LiteLLM", "/admin/litellm", "refresh-cw"),
        Entry("Announcement", "/admin/announcement", "megaphone"),
        Entry("Settings", "/admin/settings", "settings"),
    ),
}


def init_menu(app: Flask) -> None:
    """Gives the layouts their context. Every door with pages calls it; only the first call has an effect."""
    if app.extensions.setdefault(INSTALLED, False):
        return
    app.extensions[INSTALLED] = True
    app.context_processor(layout_context)


def layout_context() -> dict[str, Any]:
    """The values that the layouts need in addition to the page's own."""
    config = current.config()
    context: dict[str, Any] = {
        "brand_name": config.portal.name,
        "banner": config.portal.banner,
        "brand_logos": config.logos,
        "environment": None if config.production else config.server.environment,
        "app_version": _version(),
        "status_href": PUBLIC_STATUS if config.portal.status_page and PUBLIC_STATUS in _served() else None,
    }
    return context | _person_context()


def _person_context() -> dict[str, Any]:
    """The values for a signed-in person; none for anyone else."""
    if not current_user.is_authenticated or current_user.must_change_password:
        return {}
    served = _served()
    person = current_user._get_current_object()
    person_badges = badges(person)
    role = {"admin": "Administrator", "admin-readonly": "Administrator, read only"}.get(current_user.role, "")
    return {
        "menu": _menu(person, served, person_badges.pending),
        "theme": person.theme,
        "signed_in": {"name": current_user.username, "detail": current_user.email or role},
        "user_menu": [entry._asdict() for entry in _own(served)],
        "logout_href": "/sign-out" if is_served("public.sign_in.end") else None,
        "search_href": SEARCH if SEARCH in served else None,
        "notifications": {"href": NOTICES, "count": person_badges.unread} if NOTICES in served else None,
        "announcement": _announcement(person_badges.announcement),
        "docs_href": REFERENCE if REFERENCE in served else None,
    } | ({"status_href": STATUS} if STATUS in served and current_user.sees_everything else {})


def pages(person: Person) -> list[Page]:
    """The pages that the menus offer to this person."""
    served = _served()
    offered = [
        (group["label"] or section["label"], group["items"])
        for section in _menu(person, served, 0)
        for group in section["groups"]
    ]
    offered.append(("Account", [entry._asdict() for entry in _own(served)]))
    return [Page(entry["label"], entry["href"], label) for label, entries in offered for entry in entries]


def _own(served: dict[str, str]) -> list[Entry]:
    """The pages behind a person's name; without passwords there is none to change."""
    local = current.config().auth.local
    return [entry for entry in OWN if entry.href in served and (local or entry.href != PASSWORD)]


def _served() -> dict[str, str]:
    """The paths that this process serves, and the endpoint of each."""
    return {rule.rule: rule.endpoint for rule in current_app.url_map.iter_rules() if "GET" in (rule.methods or ())}


def _menu(person: Person, served: dict[str, str], pending: int) -> list[dict[str, Any]]:
    """The menu: the pages that this process serves and this person may read, in groups that open and close.

    The group of the current page is open, and so are those that this browser opened, or in which something waits.
    """
    opened = request.cookies.get(OPENED, "").split(".")
    sections: tuple[tuple[str, dict[str, tuple[Entry, ...]]], ...] = (("User", {"": USER}), ("Admin", ADMIN))
    visible = []
    for label, groups in sections:
        allowed = {name: [one for one in entries if _may_open(person, one, served)] for name, entries in groups.items()}
        shown = [_group(name, entries, pending, opened) for name, entries in allowed.items()]
        if shown := [group for group in shown if group["items"]]:
            visible.append({"label": label, "groups": shown})
    return visible


def _may_open(person: Person, entry: Entry, served: dict[str, str]) -> bool:
    """Whether this process serves the page, and this person may read it."""
    policy = policies.of(served.get(entry.href) or served.get(f"{entry.href}/") or "")
    return policy is not None and policy.allows(person)


def _group(name: str, entries: list[Entry], pending: int, opened: list[str]) -> dict[str, Any]:
    items = [_item(entry, pending) for entry in entries]
    waiting = sum(item["badge"] or 0 for item in items)
    return {
        "label": name,
        "items": items,
        "open": waiting > 0 or name.lower() in opened or any(item["current"] for item in items),
        "badge": waiting,
    }


def _announcement(announcement: Announcement | None) -> dict[str, Any] | None:
    """The current announcement, unless this browser has dismissed it."""
    if announcement is None or request.cookies.get(DISMISSED) == announcement.id:
        return None
    context = {"level": announcement.level, "text": announcement.text, "dismiss_href": None}
    if is_served("public.announcement.dismiss"):
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        context["dismiss_href"] = url_for("public.announcement.dismiss", id=announcement.id, next=back)
    return context


@cache
def _version() -> str:
    return version()


def _item(entry: Entry, pending: int) -> dict[str, Any]:
    return {
        **entry._asdict(),
        "current": any(_below(request.path, href) for href in (entry.href, entry.also) if href),
        "badge": pending or None if entry.href == APPROVALS else None,
    }


def _below(path: str, href: str) -> bool:
    return path == href or path.startswith(f"{href}/")
