"""What pages show of prompts: those to begin with, and how two versions differ."""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple

from app.domain.prompts import PromptVersion

COMPARED = 20_000  # characters of a version that is compared line by line


class Starter(NamedTuple):
    """A prompt that everybody can begin with."""

    id: str
    name: str
    description: str
    template: str


STARTERS = (
    Starter(
        "summarise", "Summarise", "The main points of a text.",
        "Summarise the text below in at most {{sentences}} sentences. Keep names and numbers.\n\n{{text}}",
    ),
    Starter(
        "translate", "Translate", "A text in another language.",
        "Translate the text below into {{language}}. Keep its tone and its layout.\n\n{{text}}",
    ),
    Starter(
        "review", "Review code", "Mistakes in code, with how to fix them.",
        "Review this {{language}} code. List real mistakes first, each with its fix; then what is hard to read.\n\n{{code}}",
    ),
    Starter(
        "extract", "Extract as JSON", "Named values out of a text.",
        "Read the text below and answer with JSON only, with the members {{members}}; null for what it does not say.\n\n{{text}}",
    ),
)  # fmt: skip


class Line(NamedTuple):
    """A line of a difference."""

    kind: Literal["same", "added", "removed"]
    text: str


def difference(before: PromptVersion, after: PromptVersion) -> list[Line] | None:
    """How a version's template differs from another, line by line; None where they are too long to be compared."""
    if max(len(before.template), len(after.template)) > COMPARED:
        return None
    old, new = before.template.splitlines(), after.template.splitlines()
    lines: list[Line] = []
    for act, start, end, first, last in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if act == "equal":
            lines += [Line("same", text) for text in old[start:end]]
            continue
        lines += [Line("removed", text) for text in old[start:end]]
        lines += [Line("added", text) for text in new[first:last]]
    return lines
