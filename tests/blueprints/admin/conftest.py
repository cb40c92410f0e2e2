"""The admins' world: the same browsers as the portal's, and one restricted model that people ask for."""

from __future__ import annotations

from tests.blueprints.portal.conftest import config, count_queries, guarded, signed_in, small, tell  # noqa: F401
from tests.house import (  # noqa: F401
    app,
    database_url,
    home,
    inside,
    migrated,
    once,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
from tests.page import FormPart, Page

READ_ONLY = "Read-only access: your role can’t make changes."


def usable(page: Page) -> list[str]:
    """The buttons that send one of the page's forms, those in its dialogs too, and could change something."""
    forms = [FormPart(node) for node in page.node.all_within() if node.tag == "form"]
    return [button.text for form in forms if form.method == "post" for button in form.buttons if not button.disabled]
