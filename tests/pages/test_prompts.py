"""How two versions of a prompt differ, and that the prompts to begin with are good ones."""

from __future__ import annotations

from app.domain.prompts import PromptVersion
from app.pages.prompts import COMPARED, STARTERS, difference
from app.runtime.templates import variables_of


def version(template: str) -> PromptVersion:
    return PromptVersion(prompt_id="p", version=1, template=template)


def test_lines_that_came_and_went_are_told() -> None:
    lines = difference(version("a\nb\nc"), version("a\nx\nc\nd"))
    assert lines is not None
    assert [(line.kind, line.text) for line in lines] == [
        ("same", "a"), ("removed", "b"), ("added", "x"), ("same", "c"), ("added", "d"),
    ]  # fmt: skip


def test_what_is_too_long_is_not_compared() -> None:
    assert difference(version("a"), version("b" * (COMPARED + 1))) is None


def test_each_prompt_to_begin_with_has_variables() -> None:
    assert len({one.id for one in STARTERS}) == len(STARTERS)
    assert all(variables_of(one.template) for one in STARTERS)
