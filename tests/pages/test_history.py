"""The history of keys, teams and budgets: one act reads the same on every page."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.audit import AuditEntry
from app.pages.history import ACTION_TITLES, KINDS, differences, facts_of, history_lines
from config import ROOT

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
    assert line("thing.act") == ("thing.act", "")


def entry_of(**detail: Any) -> AuditEntry:
    return AuditEntry(at=AT, actor="ada", action="thing.act", detail=detail)


def test_every_value_before_and_after_is_told_in_words() -> None:
    before = {"limit": "5", "models": ["small"], "restricted": False, "gone": 1}
    after = {
        "limit": "8",
        "models": [],
        "restricted": True,
        "tiers": [{"up_to": 5, "price": "1"}, {"price": "2"}],
        "new": None,
    }
    assert differences(entry_of(before=before, after=after)) == [
        ("limit", "5", "8"),
        ("models", "small", "all"),
        ("restricted access", "no", "yes"),
        ("gone", "1", None),
        ("tiers", None, "up to: 5, price: 1; price: 2"),
        ("new", None, "none"),
    ]
    assert differences(entry_of(reason="Because.")) == []


def test_a_secret_that_slipped_in_is_masked_and_a_shortened_one_is_not() -> None:
    told = entry_of(
        before={"api_key": "sk-abcdefgh12345678", "secret": "sk-a…b"},
        after={"note": "was sk-abcdefgh12345678", "settings": {"password": "hunter2"}},
        reason="of sk-abcdefgh12345678",
        method="token sk-abcdefgh12345678",
    )
    words = f"{differences(told)}{facts_of(told)}{history_lines([told])}"
    assert "abcdefgh" not in words
    assert "hunter2" not in words
    assert ("secret", "sk-a…b", None) in differences(told)


@given(
    detail=st.dictionaries(
        st.sampled_from(["before", "after"]),
        st.dictionaries(
            st.text(max_size=9),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=9),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=5,
            ),
            max_size=4,
        ),
    )
)
def test_whatever_an_entry_holds_can_be_told(detail: dict[str, Any]) -> None:
    told = entry_of(**detail)
    for difference in differences(told):
        assert all(isinstance(value, str | None) for value in difference[1:])
    assert history_lines([told])


def test_every_action_and_every_kind_has_its_words() -> None:
    """Those that the code spells out where it records them; a few are put together."""
    calls = [
        node
        for path in (ROOT / "app").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "record" and len(node.args) >= 4
    ]
    assert len(calls) > 40
    said = [
        (place, part.value)
        for call in calls
        for place in (1, 2)
        for part in ast.walk(call.args[place])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    assert {
        word for place, word in said if place == 1 and "." in word and word[-1] != "." and word not in ACTION_TITLES
    } == set()
    assert {word for place, word in said if place == 2 and word not in KINDS} == set()
