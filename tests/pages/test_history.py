"""The history of keys, teams and budgets: one act reads the same on every page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.audit import AuditEntry
from app.pages.history import ACTION_TITLES, history_lines

AT = datetime(2026, 11, 21, tzinfo=UTC)


def line(action: str, *, on_behalf_of: str | None = None, **detail: Any) -> tuple[str, str]:
    """The title and the text of an act of ada's."""
    entry = AuditEntry(at=AT, actor="ada", action=action, on_behalf_of=on_behalf_of, detail=detail)
    ((title, at, by, text),) = history_lines([entry])
    assert (at, by) == (AT, "ada")
    return title, text


@pytest.mark.parametrize(
    ("action", "before", "after", "text"),
    [
        ("budget.set", {"limit": None}, {"limit": "5"}, "limit: 5"),
        ("budget.set", {"limit": "5"}, {"limit": "8"}, "limit: 5 → 8"),
        ("budget.set", {"thresholds": [50, 80]}, {"thresholds": []}, "alerts at: 50%, 80% → none"),
        ("budget.set", {"action": "notify", "action_percent": 100}, {"action": "suspend", "action_percent": 90},
         "action: tell only → pause the key; action at: 100% → 90%"),
        ("budget.clear", {"limit": "5", "period": "week", "timezone": "UTC"}, None, "limit: 5; period: week"),
        ("key.update", {"rpm": 60, "models": []}, {"rpm": 7, "models": ["small", "large"]},
         "requests per minute: 60 → 7; models: all → small, large"),
        ("key.update", {"rpm": 60, "expires_at": None}, {"rpm": None, "expires_at": "2026-12-01T10:30:00+00:00"},
         "requests per minute: 60 → none; expires: never → 1 Dec 2026, 10:30 UTC"),
        ("key.create", None, {"name": "app", "note": None, "models": [], "routing": "free", "rpm": 5, "team": "Research"},
         "requests per minute: 5; team: Research"),
        ("key.create", None, {"name": "app", "routing": "fixed"}, "provider routing: fixed"),
        ("key.rotate", None, {"overlap_s": 7200, "secret": "sk-a…b"}, "the old secret works for: 2 hours; secret: sk-a…b"),
        ("team.update", {"name": "Research", "description": ""}, {"name": "Lab", "description": "Ours"},
         "name: Research → Lab; description: Ours"),
    ],
)  # fmt: skip
def test_an_act_says_what_it_changed(action: str, before: Any, after: Any, text: str) -> None:
    assert line(action, before=before, after=after) == (ACTION_TITLES[action], text)


def test_a_reason_follows_what_was_changed() -> None:
    assert line("budget.credit", after={"amount": "2"}, reason="A broken batch.") == (
        "Credit given", "amount: 2. A broken batch.",
    )  # fmt: skip
    assert line("budget.request", after={"amount": "2", "lasting": False}, reason="A report.") == (
        "Increase requested", "amount: 2; each period: no. A report.",
    )  # fmt: skip
    assert line("budget.request.deny", after={"amount": None}, reason="No.") == ("Increase denied", "No.")


def test_the_title_names_whom_an_act_concerns() -> None:
    assert line("team.member", on_behalf_of="bob", before={"role": "member"}, after={"role": "owner"}) == (
        "bob became an owner", "",
    )  # fmt: skip
    assert line("team.invite", on_behalf_of="bob", after={"role": "member"}) == (
        "Invitation sent to bob",
        "role: member",
    )
    assert line("team.leave", on_behalf_of="bob", before={"role": "member"}, after={}) == (
        "bob is no longer a member", "",
    )  # fmt: skip


def test_names_with_braces_are_told_as_they_are() -> None:
    assert line("team.invite", on_behalf_of="{role}")[0] == "Invitation sent to {role}"


def test_an_act_without_a_title_is_told_by_its_own_name() -> None:
    assert line("key.refuse") == ("key.refuse", "")
