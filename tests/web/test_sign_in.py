"""The way into pages: where a browser is led, and what is left of a session after signing in and out."""

from __future__ import annotations

import pytest

from app.web.sign_in import safe_next


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", "", "x", "/\t/evil"],
)
def test_next_leads_nowhere_else(target: str) -> None:
    assert safe_next(target) == "/"


def test_next_leads_back() -> None:
    assert safe_next("/keys?page=2") == "/keys?page=2"
