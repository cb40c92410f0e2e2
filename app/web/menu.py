"""The menu, the person and the brand around every page: what layouts/page.html shows of the deployment and the role.

It knows the doors by their addresses alone, so that it can offer exactly what this process serves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Flask, current_app, request
from flask_login import current_user

from app import current
from app.domain import subscriptions

INSTALLED = "portico_menu"


class Entry(NamedTuple):
    label: str
    href: str
    icon: str
    key: str | None = None  # `g` and this letter lead there


USER = (
    Entry("Home", "/home", "house", "h"),
    Entry("Models", "/models", "boxes", "m"),
    Entry("Subscriptions", "/subscriptions", "list-checks", "s"),
    Entry("API keys", "/keys", "key-round", "k"),
    Entry("Usage", "/usage", "chart-column", "u"),
)
APPROVALS = "/admin/approvals"
ADMIN = (
    Entry("Approvals", APPROVALS, "shield-check", "a"),
    Entry("Providers", "/admin/providers", "plug"),
    Entry("Models", "/admin/models", "layers"),
    Entry("Usage", "/admin/usage", "activity"),
    Entry("Status", "/admin/status", "heart-pulse"),
    Entry("Dead letters", "/admin/dead-letters", "inbox"),
)


def init_menu(app: Flask) -> None:
    """Gives the layouts their menu; doors with pages call it, and the first call counts."""
    if app.extensions.setdefault(INSTALLED, False):
        return
    app.extensions[INSTALLED] = True
    app.context_processor(surroundings)


def surroundings() -> dict[str, Any]:
    """What the layouts need beside the page's own values."""
    config = current.config()
    told: dict[str, Any] = {
        "brand_name": config.portal.name,
        "environment": None if config.production else config.server.environment,
    }
    if not current_user.is_authenticated or current_user.must_change_password:
        return told
    served = {rule.rule for rule in current_app.url_map.iter_rules()}
    role = {"admin": "Administrator", "admin-readonly": "Administrator, read only"}.get(current_user.role, "")
    told |= {
        "menu": _menu(served),
        "person": {"name": current_user.username, "detail": current_user.email or role},
        "user_menu": [{"label": "Change password", "href": "/password", "icon": "lock"}]
        if "/password" in served
        else [],
        "logout_href": "/sign-out" if "/sign-out" in served else None,
        "search_href": "/models" if "/models" in served else None,
    }
    return told


def _menu(served: set[str]) -> list[dict[str, Any]]:
    groups: list[tuple[str, tuple[Entry, ...]]] = [("User", USER)]
    if current_user.sees_everything:
        groups.append(("Admin", ADMIN))
    shown = []
    for label, entries in groups:
        items = [_item(entry) for entry in entries if entry.href in served or f"{entry.href}/" in served]
        if items:
            shown.append({"label": label, "items": items})
    return shown


def _item(entry: Entry) -> dict[str, Any]:
    return {
        **entry._asdict(),
        "current": request.path == entry.href or request.path.startswith(f"{entry.href}/"),
        "badge": subscriptions.waiting_count() or None if entry.href == APPROVALS else None,
    }
